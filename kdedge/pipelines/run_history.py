"""A run folder as a comparison reads it: what was asked for, and every epoch so far."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge.models.run_folder import METRICS, RunRecord, merit, read_run
from kdedge_runtime.errors import UsageError

__all__ = ["RunHistory", "TeacherOrigin", "read_epochs", "read_histories", "unique_tails"]


@dataclass(frozen=True)
class TeacherOrigin:
    """Where a run found a teacher."""

    name: str
    """As `RunHistory.name`, where it has a folder or file; the name of its network otherwise."""
    source: str
    weights: str | None
    """File of a teacher that is neither a run nor a model file."""
    sha256: str | None
    """Of its weights; runs of early versions do not tell."""

    @property
    def identity(self) -> str:
        """What tells one teacher from another."""
        return self.sha256 or self.source


@dataclass(frozen=True)
class RunHistory:
    """One run, finished or not."""

    name: str
    """The shortest tail of its folder's path that no other folder of the comparison shares."""
    folder: Path
    record: RunRecord
    epochs: tuple[dict[str, Any], ...]
    """The lines of `metrics.jsonl`."""
    teachers: tuple[TeacherOrigin, ...]
    """Several teach with the mean of their probabilities; none for a run of `kdedge train`."""

    @property
    def best(self) -> dict[str, Any] | None:
        """The best epoch by validation; None before the first one is done."""
        if self.record.result is not None:
            best: dict[str, Any] = self.record.result["best"]
            return best
        return max(self.epochs, key=merit, default=None)

    @property
    def last(self) -> dict[str, Any] | None:
        """The last epoch so far; None before the first one is done."""
        if self.record.result is not None:
            last: dict[str, Any] = self.record.result["last"]
            return last
        return self.epochs[-1] if self.epochs else None

    @property
    def test(self) -> dict[str, dict[str, Any]]:
        """Figures on the test pictures of the `best` and the `last` epoch; empty where none were taken."""
        figures: dict[str, dict[str, Any]] = (self.record.result or {}).get("test") or {}
        return figures

    @property
    def taught_by(self) -> tuple[str, ...]:
        """What tells its teachers from those of other runs."""
        return tuple(teacher.identity for teacher in self.teachers)

    @property
    def epochs_done(self) -> int:
        """How many epochs are complete."""
        return 0 if self.last is None else int(self.last["epoch"])

    @property
    def seconds(self) -> float:
        """Time that all epochs took."""
        if self.record.result is not None:
            return float(self.record.result["seconds"])
        return sum(float(epoch["seconds"]) for epoch in self.epochs)

    @property
    def data(self) -> str:
        """Where its pictures are; runs of early versions know folders only."""
        return str(self.record.data.get("source") or self.record.data["root"])

    @property
    def pictures(self) -> tuple[str, str, int]:
        """What tells one set of validation pictures from another."""
        data = self.record.data
        return str(data["fingerprint"]), str(data["split"]), int(data["val"])


def read_histories(folders: Sequence[Path]) -> tuple[RunHistory, ...]:
    """Read runs, in the order given; a folder that is named twice counts once.

    Raises:
        UsageError: a folder is no run, its files are damaged, or no run has finished an epoch.
    """
    records = {folder.resolve(): read_run(folder) for folder in folders}
    origins = {folder: _origins(record) for folder, record in records.items()}
    sources = [Path(origin["source"]) for members in origins.values() for origin in members]
    paths = list(dict.fromkeys([*records, *(source for source in sources if source.is_absolute())]))
    names = dict(zip(map(str, paths), unique_tails(paths), strict=True))

    def teacher(origin: dict[str, Any]) -> TeacherOrigin:
        source, weights = origin["source"], origin["weights"]
        return TeacherOrigin(names.get(source, source), source, weights, origin.get("weights_sha256"))

    runs = tuple(
        RunHistory(
            names[str(folder)], folder, record, read_epochs(folder / METRICS), tuple(map(teacher, origins[folder]))
        )
        for folder, record in records.items()
    )
    if all(run.last is None for run in runs):
        shown = ", ".join(run.name for run in runs[:5])
        raise UsageError(
            f"There is nothing to compare yet: no epoch is finished in {shown}. Wait for the first one, or continue "
            "a stopped run with --resume."
        )
    return runs


def read_epochs(path: Path) -> tuple[dict[str, Any], ...]:
    """The lines of `metrics.jsonl`; none where the file is missing, and without a last line that was cut short.

    An epoch that was repeated after a kill counts once.

    Raises:
        UsageError: a line before the last is damaged.
    """
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    epochs: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            epoch = json.loads(line)
            if not {"epoch", "val_top1", "seconds"} <= epoch.keys():
                raise ValueError("not the figures of an epoch")
        except (ValueError, AttributeError) as error:
            if number == len(lines):  # copied or killed in the middle of a write
                break
            raise UsageError(
                f"{path} is damaged in line {number}: {error}. Expected a JSON object an epoch. Leave this run out, or "
                "train it again."
            ) from error
        epochs[epoch["epoch"]] = epoch
    return tuple(epochs.values())


def _origins(record: RunRecord) -> list[dict[str, Any]]:
    """Where each teacher was found."""
    if record.teacher is None:
        return []
    members: list[dict[str, Any]] = record.teacher.get("members", [record.teacher])
    return members


def unique_tails(paths: Sequence[Path]) -> list[str]:
    """For each of several distinct absolute paths the fewest last parts that no other path ends in."""
    return [
        next(
            tail.as_posix()
            for length in range(1, len(path.parts) + 1)
            if sum((tail := Path(*path.parts[-length:])) == Path(*other.parts[-length:]) for other in paths) == 1
        )
        for path in paths
    ]
