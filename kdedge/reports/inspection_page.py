"""Model inspection page: the attribution of a prediction, the classifier weights, and the layers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdedge import __version__
from kdedge.pipelines.model_inspection import ImageInspection, ModelInspection
from kdedge.reports.decision_figure import decision_figure
from kdedge.reports.structure_figure import structure_figure
from kdedge_export.html.page import render
from kdedge_runtime.util.files import atomic_write

__all__ = ["Feature", "FeatureRow", "decision_page", "inspection_page", "write_inspection"]

_WEIGHT_ROWS = 16
_TOP_FEATURES = 6


@dataclass(frozen=True)
class Feature:
    """Channel with its part of a logit or of a row of weights."""

    index: int
    value: float
    """Signed contribution, or weight."""
    share: float
    """Fraction of the sum of magnitudes, in [0, 1]."""


@dataclass(frozen=True)
class FeatureRow:
    """Strongest features of one class."""

    label: str
    figure: str
    """Probability of the class, or number of features that hold half of the weight."""
    features: tuple[Feature, ...]


def write_inspection(inspected: ModelInspection, path: Path) -> None:
    """Write the page atomically."""
    atomic_write(path, inspection_page(inspected))


def inspection_page(inspected: ModelInspection) -> str:
    """Render the complete page as HTML, without scripts or external resources."""
    return _page(inspected.seen, inspected.path.name, inspected)


def decision_page(seen: ImageInspection, model: str) -> str:
    """Render the attribution of one image's prediction as a separate page.

    Args:
        seen: image and its layer attribution.
        model: name of the model file.
    """
    return _page(seen, model, None)


def _page(seen: ImageInspection | None, model: str, inspected: ModelInspection | None) -> str:
    return render(
        "kdedge.reports",
        "inspection.html",
        version=__version__,
        model=model,
        seen=seen,
        figure=None if seen is None else decision_figure(seen).svg(),
        features=[] if seen is None else _contributions(seen),
        inspected=inspected,
        structure=None if inspected is None else structure_figure(inspected.structure, inspected.times),
        weights=[] if inspected is None or seen is not None else _weights(inspected),
    )


def _contributions(seen: ImageInspection) -> list[FeatureRow]:
    scores = dict(seen.decision.ranking)
    return [
        FeatureRow(
            label=seen.labels[index],
            figure=seen.score_text(scores[index]) if index in scores else "",
            features=tuple(Feature(item.index, item.evidence, item.share) for item in items),
        )
        for index, items in seen.decision.features_by_class.items()
    ]


def _weights(inspected: ModelInspection) -> list[FeatureRow]:
    """Return the strongest weights of the classes whose weights are most concentrated."""
    weights = inspected.weights
    if weights is None:
        return []
    half = weights.features_for(0.5)
    rows = []
    for index in np.argsort(half, kind="stable")[:_WEIGHT_ROWS]:
        shares = weights.shares[index]
        top = np.argsort(-shares, kind="stable")[:_TOP_FEATURES]
        features = tuple(Feature(int(k), float(weights.weights[index, k]), float(shares[k])) for k in top)
        rows.append(FeatureRow(inspected.labels[index], str(half[index]), features))
    return rows
