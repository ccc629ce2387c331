"""Demonstration on drawn applications, whose answer is an additive function of known columns."""

import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdedge.config.train_config import TrainConfig
from kdedge.demo.demo_scenario import DemoScenario, DemoSizes, Masks
from kdedge_runtime.modalities.table_column import row_sample
from kdedge_runtime.sources.source import Frame, GroundTruth

__all__ = ["TABULAR"]

_TARGET = "answer"
_HEADER = ("income [EUR]", "age [years]", "job", "debts", "city", "phone", _TARGET)
_JOBS = ("none", "worker", "clerk", "manager")
_TITLES = _HEADER[:-1]
_FPS = 30.0


class TabularDemo(DemoScenario):
    """Applications with four columns that matter and two that do not."""

    noun = "applications"
    evidence = "cause"
    labels = ("no", "yes")
    sizes = DemoSizes(train=1500, val=300, unseen=1500, teacher_epochs=20, student_epochs=20, frames=240)
    next_data = "kdedge train DATA.csv --target COLUMN --model xgboost"

    def __init__(self) -> None:
        self._written = Path("applications.csv")

    @property
    def live_source(self) -> str:
        """Rows of the demonstration as a file."""
        return str(self._written)

    def write(self, root: Path, train: int, val: int, seed: int) -> dict[str, Masks]:
        """Write `train.csv` and `val.csv`; the masks are the columns that speak for the answer."""
        root.mkdir(parents=True)
        masks: dict[str, Masks] = {}
        for side, count in (("train", train), ("val", val)):
            rows, causes = _draw(count, np.random.default_rng((seed, side == "val")))
            _write(root / f"{side}.csv", rows)
            if side == "val":
                digits = len(str(len(rows)))
                masks = {f"val.csv:{number:0{digits}}": cause for number, cause in enumerate(causes, 1)}
        return masks

    def teacher(self, data: Path) -> TrainConfig:
        """Return the options of a wide network."""
        return TrainConfig(str(data), "mlp:256x256", target=_TARGET, epochs=self.sizes.teacher_epochs)

    def student(self, data: Path, teacher: Path) -> TrainConfig:
        """Return the options of a small network."""
        taught = TrainConfig(str(data), "mlp:16", target=_TARGET, epochs=self.sizes.student_epochs)
        return replace(taught, teacher=(str(teacher),))

    def source(self, out: Path) -> "_DrawnRows":
        """Create a source of drawn rows, and write them to `applications.csv`."""
        rows, _ = _draw(self.sizes.frames // len(self.labels), np.random.default_rng(7))
        self._written = out / "applications.csv"
        _write(self._written, rows)
        return _DrawnRows(rows)


class _DrawnRows:
    """Drawn rows with their answer; a `Source`."""

    live = False
    fps: float | None = _FPS
    dropped, unreadable, reconnects = 0, 0, 0
    name = "drawn applications"
    paths: tuple[Path, ...] = ()

    def __init__(self, rows: Sequence[tuple[str, ...]]) -> None:
        self._rows = rows
        self.expected = len(rows)

    def __enter__(self) -> "_DrawnRows":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        for index, row in enumerate(self._rows):
            truth = GroundTruth(row[-1])
            yield Frame(index, row_sample(_TITLES, row[:-1]), time.monotonic(), f"row {index + 1}", truth)


def _write(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([_HEADER, *rows])


def _draw(per_class: int, rng: np.random.Generator) -> tuple[list[tuple[str, ...]], list[Masks]]:
    """Draw rows in random order, as many of each class, and the columns that speak for their class `[1, 6]`."""
    found: dict[str, list[tuple[tuple[str, ...], Masks]]] = {label: [] for label in TabularDemo.labels}
    while min(map(len, found.values())) < per_class:
        income, age, debts = rng.gamma(4, 700), rng.uniform(18, 80), int(rng.poisson(1.2))
        job = int(rng.integers(len(_JOBS)))
        parts: NDArray[np.float64] = np.array(
            [
                np.clip((income - 2600) / 900, -2.5, 2.5),
                -abs(age - 45) / 12 + 1.3,
                1.2 * (job - 1.5),
                1.4 - 1.2 * debts,
                0,
                0,
            ]
        )
        label = TabularDemo.labels[int(parts.sum() > 0)]
        cells = (
            f"{income:.0f}",
            f"{age:.0f}",
            _JOBS[job],
            str(debts),
            f"city {rng.integers(5)}",
            str(rng.integers(100)),
        )
        speaks = parts > 0 if label == "yes" else parts < 0
        found[label].append(((*cells, label), speaks[None]))
    chosen = [each for some in found.values() for each in some[:per_class]]
    order = rng.permutation(len(chosen)).tolist()
    return [chosen[place][0] for place in order], [chosen[place][1] for place in order]


TABULAR = TabularDemo()
