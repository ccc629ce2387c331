"""`kdedge doctor`."""

__all__ = ["doctor"]


def doctor() -> None:
    """Describe this machine in one block for an issue, and advise."""
    from kdedge_runtime.verbs_of_machine import print_diagnosis

    print_diagnosis()
