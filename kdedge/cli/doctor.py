"""`kdedge doctor`."""

__all__ = ["doctor"]


def doctor() -> None:
    """Print what a helper has to know of this machine, as one block for an issue, and advise."""
    from kdedge_runtime.verbs_of_machine import print_diagnosis

    print_diagnosis()
