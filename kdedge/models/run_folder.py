"""A run folder: a trained (or half-trained) model and everything needed to build, continue and judge it.

```
RUN/run.json              what was asked for, on which data, and what came of it
RUN/metrics.jsonl         a line an epoch
RUN/best.safetensors      weights of the best epoch by validation
RUN/last.safetensors      weights and optimizer state after the last epoch: training goes on from here
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

from kdedge.models.model_spec import ModelSpec
from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.util.files import remove_staged, write_whole

__all__ = [
    "ANSWERS",
    "BEST",
    "LAST",
    "METRICS",
    "RunRecord",
    "is_run",
    "lock_run",
    "merit",
    "read_run",
    "require_free",
    "weights_file",
    "write_run",
    "writing",
]

RECORD, METRICS, BEST, LAST = "run.json", "metrics.jsonl", "best.safetensors", "last.safetensors"
ANSWERS = "teacher-answers"
"""No run, but a folder beside runs: what teachers have said of pictures, kept for all of them."""
SCHEMA = 1


@dataclass(frozen=True)
class RunRecord:
    """What `run.json` holds."""

    kind: Literal["train", "distill"]
    model: ModelSpec
    input: ImageInput
    labels: tuple[str, ...]
    data: dict[str, Any]
    """`source`, `fingerprint`, `split`, `train`, `val`, `images_per_class`."""
    recipe: dict[str, Any]
    """See `kdedge.config.training_recipe.Recipe`."""
    request: dict[str, Any]
    """The options that the user gave; a resumed run may not be given others."""
    device: str
    teacher: dict[str, Any] | None = None
    """`source`, for a model that is no run `weights`, and `weights_sha256`."""
    result: dict[str, Any] | None = None
    """`best` and `last` epoch as in `metrics.jsonl`, and the `seconds` of all; None until the run is complete."""

    def finished(self, result: dict[str, Any]) -> "RunRecord":
        """The record of the completed run."""
        return replace(self, result=result)


def is_run(path: Path) -> bool:
    """Whether a folder holds a run."""
    return (path / RECORD).is_file()


def require_free(folder: Path) -> None:
    """Raise where a new run would be in the way of one.

    Raises:
        UsageError: the folder holds a run; only of one that can go on it is said how.
    """
    if not is_run(folder):
        return
    others = (folder.parent / f"{folder.name or 'run'}-{number}" for number in count(2))
    free = next(other for other in others if not other.exists())
    elsewhere = f"another folder, such as --out {shlex.quote(str(free))}"
    try:
        finished = read_run(folder).result is not None
    except UsageError as error:
        raise UsageError(f"{folder} holds a run already, which cannot be read. Choose {elsewhere}.") from error
    if finished:
        raise UsageError(f"{folder} holds a run already, which is finished. Choose {elsewhere}.")
    raise UsageError(f"{folder} holds a run already. Type --resume to continue it, or choose {elsewhere}.")


def weights_file(folder: Path, which: Literal["best", "last"] = "best") -> Path:
    """The file with the weights of a run's best or last epoch.

    Raises:
        UsageError: it has no finished epoch.
    """
    file = folder / (BEST if which == "best" else LAST)
    if not file.is_file():
        raise UsageError(f"The run {folder} has no finished epoch yet. Continue it with --resume.")
    return file


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Keep a run folder to this process, and clear away what one that was killed has left half-written.

    Raises:
        UsageError: another process trains into it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":  # which locks no folders
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"Another process is training into {folder}. Wait for it, or choose another folder with --out."
            ) from error
        except OSError:  # some network file systems lock no folders either
            pass
        remove_staged(folder, {Path(name).suffix for name in (RECORD, METRICS, BEST, LAST)})
        yield
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of a disk that fills up which file could not be written, and how to go on.

    Raises:
        KdedgeError: the file inside the block cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise KdedgeError(
            f"Cannot write {path}: {error}. The last good checkpoint is intact. Make room, and go on with --resume "
            "(without it where the run had not begun)."
        ) from error


def write_run(folder: Path, record: RunRecord) -> None:
    """Write `run.json`, whole or not at all.

    Raises:
        KdedgeError: it cannot be written; one that was there before is intact.
    """
    content = json.dumps({"schema": SCHEMA} | asdict(record), indent=2, ensure_ascii=False) + "\n"
    with writing(folder / RECORD):
        write_whole(folder / RECORD, content)


def read_run(folder: Path) -> RunRecord:
    """Read `run.json`.

    Raises:
        UsageError: the folder holds no run, or one that this version cannot read.
    """
    if not is_run(folder):
        raise UsageError(f"{folder} is not a run folder (it has no {RECORD}). Make one with kdedge train or distill.")
    try:
        values = json.loads((folder / RECORD).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        if isinstance(values, dict) and values.get("schema") != SCHEMA:
            raise UsageError(f"{folder / RECORD} was written by another version of kdedge. Train the model again.")
        _require_schema(values)
        # Names of folders may hold bytes that are no UTF-8, as Python escapes them; other half characters are damage.
        json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogateescape")
        del values["schema"]
        spec = values["input"]
        values["model"] = ModelSpec(**values["model"])
        values["input"] = ImageInput(**spec | {"mean": tuple(spec["mean"]), "std": tuple(spec["std"])})
        values["labels"] = tuple(values["labels"])
        return RunRecord(**values)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{folder / RECORD} is damaged: {error}. Train the model again.") from error


def _require_schema(values: Any) -> None:
    """Raise unless a record keeps to `run.schema.json`.

    Raises:
        ValueError: the most telling fault, with its place.
    """
    from jsonschema import Draft202012Validator  # --help needs none
    from jsonschema.exceptions import best_match

    schema = json.loads((files("kdedge.models") / "run.schema.json").read_text(encoding="utf-8"))
    fault = best_match(Draft202012Validator(schema).iter_errors(values))
    if fault is not None:
        place = ".".join(map(str, fault.absolute_path)) or RECORD
        raise ValueError(f"{place}: {textwrap.shorten(fault.message, 160)}")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def merit(metrics: dict[str, Any]) -> tuple[float, ...]:
    """What makes an epoch better: accuracy, then agreement, then the maps, then the loss (small sets tie often)."""
    figures = tuple(metrics.get(name, 0.0) for name in ("val_top1", "val_agreement", "val_map_pearson"))
    return (*figures, -metrics["val_loss"])
