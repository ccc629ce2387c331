"""Progress of multi-step work: bars on a terminal, lines in a log."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from kdedge.cli.console import stderr_console
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["step_progress"]


@contextmanager
def step_progress() -> Iterator[ProgressCallback]:
    """Yield a callback (step name, done, total) that reports progress on stderr.

    On a terminal it draws one transient bar per step. Otherwise it prints a line when each step begins.
    """
    console = stderr_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    current: str | None = None
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    try:

        def show(what: str, done: int, total: int) -> None:
            nonlocal current
            bars.start()  # not before: downloads draw bars of their own
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            if what != current and not console.is_terminal:
                console.print(f"{what} …", soft_wrap=True)
            current = what
            bars.update(tasks[what], completed=done, total=total)

        yield show
    finally:
        bars.stop()
