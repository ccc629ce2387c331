"""Terminal output of training runs."""

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from kdedge.cli.console import flagged, stderr_console
from kdedge.models.run_folder import RunRecord, is_run
from kdedge.pipelines.training_pipeline import Run
from kdedge.reports.run_settings import duration
from kdedge.tasks import TRAINING_TASKS
from kdedge.training.run_callback import RunCallback
from kdedge_export.html.text import plain_number
from kdedge_runtime.modalities.table_column import join_unit

__all__ = ["Screen", "train_with_progress"]

_REFRESH_S = 0.5
_SHOWN = {
    "val_top1": "top-1",
    "val_r2": "R²",
    "val_mae": "mean absolute error",
    "val_agreement": "agreement",
    "val_map_pearson": "map Pearson",
}
_TESTED = {key.replace("val", "test"): f"test {title}" for key, title in _SHOWN.items()}


def train_with_progress(
    training: Callable[[RunCallback], Run],
    out: Path,
    following: Callable[[RunRecord], str],
    describe: Callable[[], Table | None] | None = None,
) -> None:
    """Run a training and print its progress to stderr.

    Args:
        training: trains with a callback and returns the run.
        out: run folder.
        following: returns the next command for a finished run.
        describe: returns a table of the data to print above the plan, or None for data without columns.
    """
    # With several training processes, only rank 0 prints.
    console = stderr_console(quiet=os.environ.get("RANK", "0") != "0")
    try:
        with Screen(console, describe) as screen:
            record = training(screen).record
    except KeyboardInterrupt:
        if is_run(out):
            console.print("\nStopped by Ctrl-C. To resume from the last checkpoint:", soft_wrap=True)
            console.print(_resume_command(), soft_wrap=True)
        raise
    if record.result is None:
        console.print("\nStopped by SIGTERM after writing a checkpoint. To resume:", soft_wrap=True)
        console.print(_resume_command(), soft_wrap=True)
        return
    _print_result(console, record, out)
    if not console.quiet:  # other ranks may not have access to the run folder
        console.print(f"\n{following(record)}", soft_wrap=True)


def _resume_command() -> str:
    """Return the command that resumes this run."""
    command = [arg for arg in sys.argv[1:] if arg != "--resume"]
    processes = os.environ.get("LOCAL_WORLD_SIZE")
    start = ["kdedge"] if processes is None else ["torchrun", "--nproc-per-node", processes, "-m", "kdedge"]
    return shlex.join([*start, *command, "--resume"])


class Screen(RunCallback):
    """Training callback with a live progress bar on a terminal, and one line per epoch everywhere."""

    def __init__(self, console: Console, describe: Callable[[], Table | None] | None = None) -> None:
        self._console = console
        self._describe = describe
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=console.quiet or not sys.stderr.isatty(),
        )
        self._preparations: dict[str, TaskID] = {}
        self._training: TaskID | None = None
        self._epochs = 0
        self._terms: list[str] = []
        self._unit: str | None = None
        self._last_refresh = 0.0
        self._validation = ""

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_warning(self, warning: str) -> None:
        """Print the warning."""
        self._console.print(flagged("warning", warning), soft_wrap=True)

    def on_progress(self, step: str, done: int, total: int, /) -> None:
        """Update the progress bar of a preparation, such as decoding."""
        self._progress.start()  # not before: downloads draw bars of their own
        if step not in self._preparations:
            self._preparations[step] = self._progress.add_task(step, total=total, note="")
        self._progress.update(self._preparations[step], completed=done)
        if done == total:
            self._progress.remove_task(self._preparations.pop(step))

    def on_plan(self, lines: list[tuple[str, str]], terms: list[str], epochs: int, unit: str | None) -> None:
        """Print the resolved plan, one line per setting."""
        self._progress.start()
        if self._training is not None:  # the demo trains twice
            self._progress.remove_task(self._training)
        self._training, self._validation = None, ""
        self._terms, self._epochs, self._unit = terms, epochs, unit
        if self._describe is not None and (table := self._describe()) is not None:
            self._console.print(table)
        for name, value in lines:
            self._console.print(f"{name:>9}  {value}", soft_wrap=True)

    def on_step(self, epoch: int, step: int, steps: int, parts: Tensor) -> None:
        """Update the progress bar with the mean losses of the epoch."""
        if self._progress.disable or time.monotonic() - self._last_refresh < _REFRESH_S:
            return  # reading the losses would synchronize with the device
        self._last_refresh = time.monotonic()
        if self._training is None:
            self._training = self._progress.add_task("", total=steps * self._epochs, note="")
        means = zip(self._terms, (parts / step).tolist(), strict=True)
        note = "  ".join(f"{name} {mean:.3f}" for name, mean in means)
        self._progress.update(
            self._training,
            completed=epoch * steps + step,
            description=f"epoch {epoch + 1}/{self._epochs}",
            note=f"{note}  {self._validation}",
        )

    def on_epoch(self, metrics: dict[str, Any]) -> None:
        """Print the summary line of the epoch."""
        self._validation = _figures(metrics, self._unit)
        measured = [(term, metrics.get(f"loss_{term}")) for term in self._terms]  # fitting the head uses logits alone
        losses = "  ".join(f"{term} {value:.3f}" for term, value in measured if value is not None)
        self._console.print(
            f"epoch {metrics['epoch']:>3}/{self._epochs}  {losses}  {self._validation}  {metrics['seconds']:.1f} s",
            soft_wrap=True,
        )


def _figures(metrics: dict[str, Any], unit: str | None) -> str:
    shown = {key: title for key, title in _SHOWN.items() if key in metrics}
    return "  ".join(f"{title} {_figure(key, metrics[key], 1, unit)}" for key, title in shown.items())


def _print_result(console: Console, record: RunRecord, out: Path) -> None:
    assert record.result is not None
    rows = {which: record.result[which] | record.result.get("test", {}).get(which, {}) for which in ("best", "last")}
    columns = {key: title for key, title in (_SHOWN | _TESTED).items() if any(key in row for row in rows.values())}
    unit = TRAINING_TASKS[record.task].unit(record.labels)
    columns |= {key: join_unit(title, unit) for key, title in columns.items() if key.endswith("mae")}
    table = Table()
    table.add_column("")
    for title in ("epoch", *columns.values()):
        table.add_column(title, justify="right")
    for which, name in (("best", "best by validation"), ("last", "last")):
        metrics = rows[which]
        table.add_row(name, _epoch(metrics), *(_figure(key, metrics.get(key)) for key in columns))
    # Not the table title, which would wrap at the table width.
    console.print(f"\n{out}, after {duration(record.result['seconds'])}", soft_wrap=True)
    console.print(table)


def _epoch(metrics: dict[str, Any]) -> str:
    """Return the number of the epoch, or those that are averaged."""
    return f"{metrics['epoch']}" if "average" not in metrics else f"1 … {metrics['epoch']} averaged"


def _figure(key: str, value: float | None, digits: int = 2, unit: str | None = None) -> str:
    """Format a metric with its unit, or a dash if it is undefined, such as the correlation of constant maps."""
    if value is None:
        return "–"
    if key.endswith("mae"):
        return plain_number(value, unit)
    return f"{value:.3f}" if key.endswith(("pearson", "r2")) else f"{value:.{digits}%}"
