"""`kdedge doctor`."""

__all__ = ["doctor"]


def doctor() -> None:
    """Describe this machine in one block for an issue, and advise."""
    from kdedge_runtime.cli.machine_commands import print_diagnosis

    print_diagnosis()
