"""`python -m kdedge`, which is what `torchrun -m kdedge` starts in every process."""

from kdedge.cli import main

if __name__ == "__main__":
    main()
