"""Run folders: a trained or partially trained model with everything needed to build, resume and evaluate it.

```
RUN/run.json              request, dataset and results
RUN/metrics.jsonl         one line per epoch
RUN/head.safetensors      weights after the first epoch, if it fitted the last layer only
RUN/best.safetensors      best weights by validation
RUN/last.safetensors      weights and optimizer state after the last epoch, for resuming
```
"""

import json
import os
import shlex
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError

from kdedge.data.dataset_options import DatasetOptions
from kdedge.models.model_spec import ModelSpec
from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.modalities import InputSpec, parse_input
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.files import atomic_write, remove_partial_files
from kdedge_runtime.util.plugin_registry import MissingPlugin

__all__ = [
    "TEACHER_CACHE",
    "BEST",
    "HEAD",
    "LAST",
    "METRICS",
    "RunRecord",
    "is_run",
    "lock_run",
    "read_run",
    "check_folder_free",
    "weights_file",
    "write_run",
    "writing",
]

RECORD, METRICS, BEST, LAST = "run.json", "metrics.jsonl", "best.safetensors", "last.safetensors"
HEAD = "head.safetensors"
TEACHER_CACHE = "teacher-outputs"
"""Folder next to runs, with the cache of teacher outputs shared by all of them; not a run."""
SCHEMA = 1
_MAX_REASON_LENGTH = 250


@dataclass(frozen=True)
class RunRecord:
    """Contents of `run.json`."""

    kind: Literal["train", "distill"]
    model: ModelSpec
    input: InputSpec
    labels: tuple[str, ...]
    data: dict[str, Any]
    """Dataset record: `source`, `fingerprint`, `split`, `train`, `val`, `schema`, `options`, `samples_per_class`,
    `leave_out`, `unlabeled`.

    `unlabeled` is None, or see `UnlabeledPart.record`.
    """
    recipe: dict[str, Any]
    """Resolved settings, see `kdedge.config.resolved_config.ResolvedConfig`."""
    request: dict[str, Any]
    """Explicit options of the user; a resumed run must have the same."""
    device: str
    task: str = "classify"
    """Task of the dataset, a key of `kdedge.tasks.TRAINING_TASKS`."""
    teacher: dict[str, Any] | None = None
    """Teacher record: `source`, `weights` for a file of a named model, and `weights_sha256`; None without a teacher.

    Published weights add `url` and `license`.
    """
    start: dict[str, Any] | None = None
    """Record of the trained weights that the run started from, see `NetworkWeights.record`.

    None for random weights, and for weights selected from the teacher.
    """
    result: dict[str, Any] | None = None
    """Metrics of the `best` and `last` epoch as in `metrics.jsonl`, and total `seconds`; None until complete.

    The best weights may be an average, see `kdedge.training.weight_average`; its metrics have the share `average`.
    """

    @property
    def left_out(self) -> tuple[str, ...]:
        """Classes of the dataset that the run was trained without."""
        return tuple(self.data.get("leave_out", ()))

    @property
    def dataset_options(self) -> DatasetOptions:
        """Options of reading the dataset."""
        return DatasetOptions.of(self.data.get("options", {}))

    def finished(self, result: dict[str, Any]) -> "RunRecord":
        """Return the record of the completed run."""
        return replace(self, result=result)


def is_run(path: Path) -> bool:
    """Return True if a folder holds a run."""
    return (path / RECORD).is_file()


def check_folder_free(folder: Path) -> None:
    """Raise if a folder already holds a run.

    Raises:
        UsageError: the folder holds a run. The message suggests another folder, and --resume for an incomplete run.
    """
    if not is_run(folder):
        return
    others = (folder.parent / f"{folder.name or 'run'}-{number}" for number in count(2))
    free = next(other for other in others if not other.exists())
    elsewhere = f"another folder, such as --out {shlex.quote(str(free))}"
    try:
        finished = read_run(folder).result is not None
    except KdedgeError as error:
        raise UsageError(f"{folder} already holds a run, which cannot be read. Choose {elsewhere}.") from error
    if finished:
        raise UsageError(f"{folder} already holds a run, which is complete. Choose {elsewhere}.")
    raise UsageError(f"{folder} already holds a run. Add --resume to continue it, or choose {elsewhere}.")


def weights_file(folder: Path, which: Literal["best", "last"] = "best") -> Path:
    """Return the weights file of a run's best or last epoch.

    Raises:
        UsageError: no epoch is complete.
    """
    file = folder / (BEST if which == "best" else LAST)
    if not file.is_file():
        raise UsageError(f"The run {folder} has no complete epoch yet. Continue it with --resume.")
    return file


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Lock a run folder for this process, and remove partial files of a killed process.

    Raises:
        UsageError: another process is training in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":  # Windows cannot lock folders
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"Another process is training in {folder}. Wait for it, or choose another folder with --out."
            ) from error
        except OSError:  # some network file systems cannot lock folders either
            pass
        remove_partial_files(folder, {Path(name).suffix for name in (RECORD, METRICS, HEAD, BEST, LAST)})
        yield
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert write errors, such as a full disk, into an error with the file name and advice.

    Raises:
        KdedgeError: the file inside the block cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise KdedgeError(
            f"Cannot write {path}: {error}. The last good checkpoint is kept. Free some space, and continue with "
            "--resume (or without it if the run had not started)."
        ) from error


def write_run(folder: Path, record: RunRecord) -> None:
    """Write `run.json` atomically.

    Raises:
        KdedgeError: the file cannot be written; an existing file is kept.
    """
    content = json.dumps({"schema": SCHEMA} | asdict(record), indent=2, ensure_ascii=False) + "\n"
    with writing(folder / RECORD):
        atomic_write(folder / RECORD, content)


def read_run(folder: Path) -> RunRecord:
    """Read `run.json`.

    Raises:
        UsageError: the folder has no run, or one that this version cannot read.
        MissingPlugin: no installed package provides the modality or the task of the run.
    """
    if not is_run(folder):
        raise UsageError(f"{folder} is not a run folder (it has no {RECORD}). Create one with kdedge train or distill.")
    try:
        values = json.loads((folder / RECORD).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        if isinstance(values, dict) and values.get("schema") != SCHEMA:
            raise UsageError(f"{folder / RECORD} was written by another version of kdedge. Train the model again.")
        _require_schema(values)
        # Folder names may contain non-UTF-8 bytes, which Python escapes; other lone surrogates are damage.
        json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogateescape")
        del values["schema"]
        spec = values["input"]
        values["model"] = ModelSpec(**values["model"])
        values["input"] = parse_input(spec)
        values["labels"] = tuple(values["labels"])
        TASKS[values.get("task", "classify")]  # raises MissingPlugin
        return RunRecord(**values)
    except MissingPlugin:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = textwrap.shorten(str(error), _MAX_REASON_LENGTH)
        raise UsageError(f"{folder / RECORD} is damaged: {reason}. Train the model again.") from error


def _require_schema(values: Any) -> None:
    """Validate a record against `run.schema.json`.

    Raises:
        ValueError: the most relevant violation, with its location.
    """
    from jsonschema import Draft202012Validator  # not needed for --help
    from jsonschema.exceptions import best_match

    schema = json.loads((files("kdedge.models") / "run.schema.json").read_text(encoding="utf-8"))
    fault = best_match(Draft202012Validator(schema).iter_errors(values))
    if fault is not None:
        place = ".".join(map(str, fault.absolute_path)) or RECORD
        raise ValueError(f"{place}: {textwrap.shorten(fault.message, 160)}")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
