"""Compare two models on the same samples and for the same classes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics import agreement, map_similarity
from kdedge_export.metrics.confidence import (
    CORRELATION,
    DIFFERENCE,
    SHARE,
    Interval,
    mean_interval,
    percentile_interval,
)
from kdedge_export.metrics.resampling import to_common_size
from kdedge_export.metrics.scores import mean, percentile
from kdedge_export.metrics.task_metrics import TaskMetrics, TaskWording
from kdedge_export.metrics.torch_predictions import Predictions
from kdedge_runtime.util.arrays import Floats, Targets

__all__ = ["Comparison", "MapComparison", "compare", "maps_pearson", "pair_pearson"]


@dataclass(frozen=True)
class MapComparison:
    """Agreement of a candidate's raw saliency maps with the reference's, at the smaller of the two resolutions.

    A map is lost if exactly one map of a pair is constant or not finite, or if the candidate explains a class other
    than the requested one. A lost map counts as 0 in the correlations and the IoU, since leaving it out would reward
    losing it. Pairs of two constant maps are left out.
    """

    n_compared: int
    """Number of pairs with at least one map that is not constant; the correlations and the IoU cover these."""
    pearson_mean: float
    """Mean Pearson correlation of the maps over samples; NaN if every pair is constant."""
    pearson_p5: float
    """5th percentile of the correlation over samples."""
    pearson_p1: float
    """1st percentile of the correlation over samples."""
    top20_iou_mean: float
    """Mean IoU of the 20% of positions with the largest values; 0.11 by chance."""
    max_relative_error: float
    """Largest difference at any position of any sample, relative to the range of that sample's reference map."""
    scale_error: float
    """Mean relative difference of the maps' norms, in [0, 1]; 1 if the candidate explains another class."""
    shuffled_pearson: float
    """Mean correlation of the reference's map of one sample with the candidate's of another; NaN for a single
    sample."""
    constant_reference: int
    """Number of samples whose reference map is constant."""
    constant_candidate: int
    wrong_class: int
    """Number of samples where the candidate explained a class other than the requested one."""
    intervals: Mapping[str, Interval | None]
    """95% intervals by field name: the mean, the percentiles, the IoU, the scale error and the correlation of
    shuffled maps."""


@dataclass(frozen=True)
class Comparison:
    """Agreement of a candidate model with a reference."""

    n: int
    """Number of samples compared."""
    accuracy_reference: float | None
    """Accuracy of the task: top-1 in [0, 1], or R², which has no lower bound; None without targets."""
    accuracy_candidate: float | None
    accuracy_drop: float | None
    """Accuracy of the reference minus that of the candidate, in the unit of both; negative for a gain."""
    agreement: float
    """Fraction of samples in [0, 1] with the same top-1 class."""
    divergence: float
    """Mean divergence of the candidate from the reference in nats (`TaskMetrics.divergence`)."""
    divergence_capped: float
    """Mean divergence with each sample capped at 1 nat, and counted as 1 if its logits are not finite."""
    logits_error: float
    """Largest difference of any logit of any sample, relative to the range of the reference's logits."""
    logits_distance: float
    """Mean distance of the logits in [0, 1] (`agreement.distance`)."""
    maps: MapComparison | None
    """Comparison of the maps; None if either model has none."""
    lost_map: bool
    """True if the reference has maps and the candidate has none."""
    intervals: Mapping[str, Interval | None]
    """95% intervals by field name: both accuracies, their paired difference, the agreement, both divergences and the
    logits distance."""
    wording: TaskWording = TaskWording()  # noqa: RUF009 - frozen
    """Names of the task's metrics."""


def compare(reference: Predictions, candidate: Predictions, targets: Targets | None, task: TaskMetrics) -> Comparison:
    """Compare a candidate's predictions and saliency maps with a reference's.

    Args:
        reference: predictions to preserve.
        candidate: predictions for the same samples and the same explained classes.
        targets: int64 `[N]`, the ground truth; None for unlabeled samples.
        task: metrics of the models' task.
    """
    agrees = task.agreement(reference.logits, candidate.logits)
    divergence = task.divergence(reference.logits, candidate.logits)
    capped = np.nan_to_num(np.clip(divergence, 0, 1), nan=1.0)
    distance = agreement.distance(task.centered(reference.logits), task.centered(candidate.logits))
    intervals = {
        "agreement": mean_interval(agrees, SHARE),
        "divergence": mean_interval(divergence),
        "divergence_capped": mean_interval(capped, SHARE),
        "logits_distance": mean_interval(distance, SHARE),
    }
    accuracy_reference = accuracy_candidate = drop = None
    if targets is not None:
        kept, right = (task.correct(model.logits, targets) for model in (reference, candidate))
        accuracy_reference, accuracy_candidate = float(kept.mean()), float(right.mean())
        drop = float((kept - right).mean())
        intervals["accuracy_reference"] = mean_interval(kept, task.bounds)
        intervals["accuracy_candidate"] = mean_interval(right, task.bounds)
        most = None if task.bounds is None else DIFFERENCE
        intervals["accuracy_drop"] = mean_interval(kept - right, most)
    return Comparison(
        n=len(reference.logits),
        accuracy_reference=accuracy_reference,
        accuracy_candidate=accuracy_candidate,
        accuracy_drop=drop,
        agreement=float(agrees.mean()),
        divergence=float(divergence.mean()),
        divergence_capped=float(capped.mean()),
        logits_error=float(agreement.logits_error(reference.logits, candidate.logits).max()),
        logits_distance=float(distance.mean()),
        wording=task.wording,
        maps=_compare_maps(reference, candidate),
        lost_map=reference.maps is not None and candidate.maps is None,
        intervals=intervals,
    )


def pair_pearson(reference: Predictions, candidate: Predictions) -> NDArray[np.float64] | None:
    """Compute the correlation of each sample's two maps, `[N]`: 0 if a map is lost, NaN if both are constant.

    Returns None if either model has no maps.
    """
    if reference.maps is None or candidate.maps is None:
        return None
    return maps_pearson(reference.maps, candidate.maps, _wrong_class(reference, candidate))


def maps_pearson(reference: Floats, candidate: Floats, wrong: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Compute the correlation of pairs of maps, `[N]`: 0 if one is lost, NaN if both are constant.

    Args:
        reference: raw maps `[N, h, w]`.
        candidate: raw maps `[N, h', w']`; the larger ones are downsampled by averaging.
        wrong: bool `[N]`, True for candidate maps that explain another class, which count as lost.
    """
    a, b = to_common_size(reference, candidate)
    return _lost_as_zero(map_similarity.map_pearson(a, b), a, b, np.zeros(len(a), np.bool_) if wrong is None else wrong)


def _compare_maps(reference: Predictions, candidate: Predictions) -> MapComparison | None:
    pearson = pair_pearson(reference, candidate)
    if pearson is None or reference.maps is None or candidate.maps is None:
        return None
    a, b = to_common_size(reference.maps, candidate.maps)
    wrong = _wrong_class(reference, candidate)
    iou = _lost_as_zero(map_similarity.topk_iou(a, b), a, b, wrong)
    scale = np.where(wrong, 1.0, map_similarity.scale_error(a, b))
    shuffled = (
        map_similarity.map_pearson(a, b[map_similarity.permute_pairs(len(b))]) if len(b) > 1 else np.array([np.nan])
    )
    return MapComparison(
        n_compared=int((~np.isnan(pearson)).sum()),
        pearson_mean=mean(pearson),
        pearson_p5=percentile(pearson, 5),
        pearson_p1=percentile(pearson, 1),
        top20_iou_mean=mean(iou),
        max_relative_error=float(np.where(wrong, np.inf, map_similarity.map_error(a, b)).max()),
        scale_error=float(scale.mean()),
        shuffled_pearson=mean(shuffled),
        constant_reference=int(map_similarity.is_constant(reference.maps).sum()),
        constant_candidate=int(map_similarity.is_constant(candidate.maps).sum()),
        wrong_class=int(wrong.sum()),
        intervals={
            "pearson_mean": mean_interval(pearson, CORRELATION),
            "pearson_p5": percentile_interval(pearson, 5),
            "pearson_p1": percentile_interval(pearson, 1),
            "top20_iou_mean": mean_interval(iou, SHARE),
            "scale_error": mean_interval(scale, SHARE),
            "shuffled_pearson": mean_interval(shuffled),
        },
    )


def _wrong_class(reference: Predictions, candidate: Predictions) -> NDArray[np.bool_]:
    return np.asarray(reference.explained_class != candidate.explained_class)


def _lost_as_zero(scores: NDArray[np.float64], a: Floats, b: Floats, wrong: NDArray[np.bool_]) -> NDArray[np.float64]:
    nothing_to_lose = map_similarity.is_constant(a) & map_similarity.is_constant(b)
    return np.where(wrong | (np.isnan(scores) & ~nothing_to_lose), 0.0, scores)
