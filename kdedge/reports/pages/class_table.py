"""Per-class accuracy changes between runs, as an HTML table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdedge.pipelines.disagreement import class_accuracy
from kdedge.pipelines.run_predictions import RunPredictions
from kdedge.reports.pages.run_styles import RunStyle, swatch
from kdedge_export.html.text import escape, points, quantity
from kdedge_export.metrics import agreement

__all__ = ["class_table"]

_OPEN_ROWS = 24
"""Number of classes shown at once; the others are collapsed."""
_FULL_TINT = 0.5
"""Change of top-1 at which a cell has its full color."""


@dataclass(frozen=True)
class _Classes:
    labels: tuple[str, ...]
    images: NDArray[np.int64]
    """Number of images per class, `[K]`."""
    accuracy: NDArray[np.float64]
    """Top-1 per run and class, `[runs, K]`; the first row is the baseline."""

    @property
    def order(self) -> list[int]:
        """Class indices, sorted by the largest loss against the baseline, then by top-1, worst first.

        Classes without images are excluded.
        """
        change = (self.accuracy[1:] - self.accuracy[0]).min(axis=0, initial=np.inf)
        rank = np.lexsort((self.accuracy.mean(axis=0), change))
        return [int(index) for index in rank if self.images[index]]


def class_table(predictions: Sequence[RunPredictions], looks: Mapping[str, RunStyle]) -> str:
    """Return a table of top-1 per class: the baseline's, and the change of every other run, worst first.

    Args:
        predictions: Predictions of the runs on the same images; the first run is the baseline.
        looks: Color and line style of each run, by name.
    """
    classes = _classes(predictions)
    heads = "".join(
        f'<th scope="col"><span>{swatch(looks[one.title])} {escape(one.title)}</span></th>' for one in predictions
    )
    head = f'<tr><th scope="col">class</th><th scope="col">images</th>{heads}</tr>'
    total = _row("all", int(classes.images.sum()), [_overall(one) for one in predictions])
    rows = [
        _row(escape(classes.labels[index]), int(classes.images[index]), list(classes.accuracy[:, index]))
        for index in classes.order
    ]
    tall = " tall" if len(predictions) > 6 else ""
    shown = _table(tall, head, [total, *rows[:_OPEN_ROWS]])
    rest = rows[_OPEN_ROWS:]
    if not rest:
        return shown
    return f"{shown}<details><summary>The other {len(rest)} classes</summary>{_table(tall, head, rest)}</details>"


def _classes(predictions: Sequence[RunPredictions]) -> _Classes:
    pictures = predictions[0].images
    count = len(pictures.labels)
    hits = [agreement.top1(one.predictions.logits) == one.right for one in predictions]
    accuracy = np.stack([class_accuracy(hit, pictures.targets, count) for hit in hits])
    return _Classes(pictures.labels, np.bincount(pictures.targets, minlength=count), accuracy)


def _overall(predictions: RunPredictions) -> float:
    return agreement.top1_accuracy(predictions.predictions.logits, predictions.right)


def _row(label: str, images: int, accuracy: list[float]) -> str:
    first = f"<td>{_percent(accuracy[0])}</td>"
    others = "".join(_position(value, value - accuracy[0]) for value in accuracy[1:])
    return f'<tr><th scope="row">{label}</th><td class="soft">{images:,}</td>{first}{others}</tr>'


def _position(value: float, change: float) -> str:
    kind = "gain" if change > 0 else "loss" if change < 0 else "same"
    tint = round(100 * min(1.0, abs(change) / _FULL_TINT))
    return f'<td class="{kind}" style="--tint:{tint}%" title="{_percent(value)}">{points(100 * change)}</td>'


def _percent(share: float) -> str:
    return quantity(100 * share, 1, "\u00a0%")


def _table(kind: str, head: str, rows: Sequence[str]) -> str:
    body = f"<thead>{head}</thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table class="classes{kind}">{body}</table></div>'
