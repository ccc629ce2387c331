"""History of a run folder for comparison: its request and the metrics of every epoch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge.models.run_folder import METRICS, RunRecord, read_run
from kdedge.tasks import TRAINING_TASKS
from kdedge_runtime.errors import UsageError

__all__ = ["RunHistory", "TeacherOrigin", "read_epochs", "read_histories", "shortest_unique_suffixes"]


@dataclass(frozen=True)
class TeacherOrigin:
    """Recorded location of a run's teacher."""

    name: str
    """Short unique name of its folder or file (as `RunHistory.name`), or the model name."""
    record: Mapping[str, Any]
    """Record of the teacher, see `LoadedTeacher.record`."""

    @property
    def source(self) -> str:
        """Location of a run or model file, or name of a model."""
        return str(self.record["source"])

    @property
    def identity(self) -> str:
        """Key that distinguishes teachers."""
        classes = ",".join(self.record.get("classes", ()))
        return f"{self.record.get('weights_sha256') or self.source} {classes}"


@dataclass(frozen=True)
class RunHistory:
    """One run, complete or not."""

    name: str
    """Shortest suffix of its folder's path that is unique in the comparison."""
    folder: Path
    record: RunRecord
    epochs: tuple[dict[str, Any], ...]
    """Lines of `metrics.jsonl`."""
    teachers: tuple[TeacherOrigin, ...]
    """Teachers of the run; several form an ensemble, `kdedge train` has none."""

    @property
    def best(self) -> dict[str, Any] | None:
        """Metrics of the best epoch by validation, or None before the first epoch is complete."""
        if self.record.result is not None:
            best: dict[str, Any] = self.record.result["best"]
            return best
        return max(self.epochs, key=TRAINING_TASKS[self.record.task].merit, default=None)

    @property
    def last(self) -> dict[str, Any] | None:
        """Metrics of the last epoch, or None before the first epoch is complete."""
        if self.record.result is not None:
            last: dict[str, Any] = self.record.result["last"]
            return last
        return self.epochs[-1] if self.epochs else None

    @property
    def test(self) -> dict[str, dict[str, Any]]:
        """Test metrics of the `best` and `last` epoch; empty if the run has no test split."""
        figures: dict[str, dict[str, Any]] = (self.record.result or {}).get("test") or {}
        return figures

    @property
    def taught_by(self) -> tuple[str, ...]:
        """Identities of its teachers."""
        return tuple(teacher.identity for teacher in self.teachers)

    @property
    def epochs_done(self) -> int:
        """Number of completed epochs."""
        return 0 if self.last is None else int(self.last["epoch"])

    @property
    def seconds(self) -> float:
        """Total training time in seconds."""
        if self.record.result is not None:
            return float(self.record.result["seconds"])
        return sum(float(epoch["seconds"]) for epoch in self.epochs)

    @property
    def data(self) -> str:
        """Dataset location."""
        return str(self.record.data["source"])

    @property
    def unit(self) -> str | None:
        """Unit of the target of a regression; None without one."""
        return TRAINING_TASKS[self.record.task].unit(self.record.labels)

    @property
    def samples(self) -> tuple[str, str, int]:
        """Key that distinguishes validation sets: fingerprint, split rule and size."""
        data = self.record.data
        return str(data["fingerprint"]), str(data["split"]), int(data["val"])


def read_histories(folders: Sequence[Path]) -> tuple[RunHistory, ...]:
    """Read runs in the order given; duplicate folders are merged.

    Raises:
        UsageError: A folder is not a run, its files are damaged, or no run has completed an epoch.
    """
    records = {folder.resolve(): read_run(folder) for folder in folders}
    origins = {folder: _origins(record) for folder, record in records.items()}
    sources = [Path(origin["source"]) for members in origins.values() for origin in members]
    paths = list(dict.fromkeys([*records, *(source for source in sources if source.is_absolute())]))
    names = dict(zip(map(str, paths), shortest_unique_suffixes(paths), strict=True))

    def teacher(origin: dict[str, Any]) -> TeacherOrigin:
        return TeacherOrigin(names.get(origin["source"], origin["source"]), origin)

    runs = tuple(
        RunHistory(
            names[str(folder)], folder, record, read_epochs(folder / METRICS), tuple(map(teacher, origins[folder]))
        )
        for folder, record in records.items()
    )
    if all(run.last is None for run in runs):
        shown = ", ".join(run.name for run in runs[:5])
        raise UsageError(
            f"There is nothing to compare yet: no epoch is complete in {shown}. Wait for the first epoch, or continue "
            "a stopped run with --resume."
        )
    return runs


def read_epochs(path: Path) -> tuple[dict[str, Any], ...]:
    """Read the lines of `metrics.jsonl`; empty if the file is missing. A truncated last line is ignored.

    If an epoch was repeated after a kill, its last entry is used.

    Raises:
        UsageError: A line before the last one is damaged.
    """
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    epochs: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            epoch = json.loads(line)
            if not {"epoch", "loss", "seconds"} <= epoch.keys():
                raise ValueError("not the metrics of an epoch")
        except (ValueError, AttributeError) as error:
            if number == len(lines):  # copied or killed during a write
                break
            raise UsageError(
                f"{path} is damaged in line {number}: {error}. Expected one JSON object per epoch. Exclude this run, "
                "or train it again."
            ) from error
        epochs[epoch["epoch"]] = epoch
    return tuple(epochs.values())


def _origins(record: RunRecord) -> list[dict[str, Any]]:
    """Return the recorded location of each teacher."""
    if record.teacher is None:
        return []
    members: list[dict[str, Any]] = record.teacher.get("members", [record.teacher])
    return members


def shortest_unique_suffixes(paths: Sequence[Path]) -> list[str]:
    """Return the shortest unique path suffix of each of several distinct absolute paths."""
    return [
        next(
            tail.as_posix()
            for length in range(1, len(path.parts) + 1)
            if sum((tail := Path(*path.parts[-length:])) == Path(*other.parts[-length:]) for other in paths) == 1
        )
        for path in paths
    ]
