"""Compare an exported graph with its PyTorch module before the file is saved."""

from dataclasses import dataclass

import numpy as np

from kdedge_export.metrics import agreement, map_similarity
from kdedge_export.metrics.torch_predictions import Predictions, predict
from kdedge_export.modalities import modality_of
from kdedge_export.tasks import EXPORT_TASKS
from kdedge_export.torch_export import ClassifierOnly, ExportableModel
from kdedge_export.validation.exactness import Bounds, Exactness, measure_exactness
from kdedge_export.validation.float_tolerance import CEILING, WorstCase
from kdedge_export.validation.other_classes import other_classes
from kdedge_runtime import Model
from kdedge_runtime.diagnostics.default_class import run_without_class
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.modalities import Sample
from kdedge_runtime.util.arrays import Integers

__all__ = ["TOLERANCE", "check_against_torch"]

TOLERANCE = 1e-4
"""Maximum error of logits and maps against PyTorch, relative to their range.

It allows for a different order of float32 sums. Errors may also reach PyTorch's own float32 error on that sample,
measured against float64, up to 1% of the range. A differentiated map is compared with units at activation boundaries
kept on the same side.
"""
_BOUNDS = Bounds(TOLERANCE, TOLERANCE, TOLERANCE, CEILING)


@dataclass(frozen=True)
class _Measured:
    exact: Exactness
    logits_error: float
    map_error: float


def check_against_torch(module: ExportableModel | ClassifierOnly, model: Model) -> tuple[float, float | None]:
    """Compare module and file on two batches of different content and size (one and three samples).

    Different inputs reveal values exported as constants. Each batch is run for its top-1 classes, selected by the file
    itself, and for other classes.

    Args:
        module: exported module.
        model: its model file.

    Returns:
        The maximum errors of logits and maps relative to their range; None for the maps of a file without maps.

    Raises:
        KdedgeError: the graph does not match PyTorch, does not explain its top-1 class by default, or rounding errors
            are too large to compare them.
    """
    spec, generator = module.spec, np.random.default_rng(0)
    measured = []
    for count in (1, 3):
        samples = modality_of(spec).random_samples(spec, count, generator)
        if model.has_map and (fault := run_without_class(model, samples).fault) is not None:
            raise KdedgeError(
                f"The exported graph does not explain its top-1 class: {fault}. Please report this model."
            )
        free = predict(model, samples)
        top = free.logits.argmax(axis=1)
        measured.append(_measure(module, model, samples, top, free))
        if model.has_map and free.logits.shape[1] > 1:
            other = other_classes(top, free.logits.shape[1])
            measured.append(_measure(module, model, samples, other, predict(model, samples, other)))
    _require_exact([found.exact for found in measured])
    logits_error, map_error = (
        max(getattr(found, name) for found in measured) for name in ("logits_error", "map_error")
    )
    return logits_error, None if isinstance(module, ClassifierOnly) else map_error


def _measure(
    module: ExportableModel | ClassifierOnly, model: Model, samples: Sample, classes: Integers, theirs: Predictions
) -> _Measured:
    ours = predict(module, samples, classes)
    errors = [agreement.logits_error(ours.logits, theirs.logits), np.zeros(len(samples))]
    if ours.maps is not None and theirs.maps is not None:
        errors[1] = map_similarity.map_error(ours.maps, theirs.maps)
    task = EXPORT_TASKS[model.metadata.task]
    exact = measure_exactness(module, model, samples, ours, theirs, _BOUNDS, task)
    return _Measured(exact, *(float(each.max()) for each in errors))


def _require_exact(found: list[Exactness]) -> None:
    kinds = {
        "logits": _worst([exact.logits for exact in found]),
        "KL divergence": _worst([exact.divergence for exact in found]),
        "map": _worst([exact.maps for exact in found if exact.maps is not None]),
    }
    decisive = {kind: worst for kind, worst in kinds.items() if worst is not None}
    outcomes = {worst.outcome for worst in decisive.values()}
    figures = ", ".join(f"{worst.error:.1e} ({kind})" for kind, worst in decisive.items())
    if "failed" in outcomes:
        bounds = ", ".join(f"{worst.bound:.0e}" for worst in decisive.values())
        raise KdedgeError(
            f"The exported graph does not match PyTorch: relative errors {figures}, expected at most "
            f"{bounds}. Please report this model."
        )
    if "inconclusive" in outcomes:
        raise KdedgeError(
            f"The export cannot be confirmed to match PyTorch: relative errors {figures}, expected at most "
            f"{CEILING:.0e}, and PyTorch's own float32 error against float64 is similar on these samples. The model is "
            "ill-conditioned; export weights that are trained, or trained longer."
        )


def _worst(found: list[WorstCase]) -> WorstCase | None:
    order = {"passed": 0, "inconclusive": 1, "failed": 2}
    return max(
        found, key=lambda one: (order[one.outcome], np.nan_to_num(one.error / one.bound, nan=np.inf)), default=None
    )
