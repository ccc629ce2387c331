"""The `kdedge doctor` command."""

__all__ = ["doctor"]


def doctor() -> None:
    """Print an environment report for bug reports, with advice."""
    from kdedge_runtime.cli.doctor import print_report

    print_report()
