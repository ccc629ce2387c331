"""Entry point of `python -m kdedge`, used by `torchrun -m kdedge` in every process."""

from kdedge.cli import main

if __name__ == "__main__":
    main()
