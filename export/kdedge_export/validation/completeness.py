"""Completeness: the contributions of a map add up to the explained logit minus that of the reference.

Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017, section 3; Shrikumar et al., ICML 2017, eq. 1
(summation-to-delta).
"""

import numpy as np

from kdedge_export.metrics.torch_predictions import predict
from kdedge_export.validation.check import Check, check_value
from kdedge_export.validation.gates import Gates
from kdedge_runtime import Model
from kdedge_runtime.modalities import Sample
from kdedge_runtime.saliency_methods import SALIENCY_METHODS
from kdedge_runtime.util.arrays import Integers

__all__ = ["check_completeness", "completeness_error"]


def completeness_error(model: Model, samples: Sample, classes: Integers) -> float:
    """Compute the largest error of the sums, relative to the largest difference of the logits from the reference.

    Args:
        model: model file with a map whose method is complete.
        samples: preprocessed samples `[N, …]`.
        classes: int64 `[N]`, the explained classes.
    """
    spec = model.metadata.input
    reference = spec.mask(samples[0], np.zeros((1, *spec.mask_size), np.float32))
    found, base = predict(model, samples, classes), predict(model, reference)
    assert found.maps is not None
    logits, zero = found.logits.astype(np.float64), base.logits[0].astype(np.float64)
    gained = logits[np.arange(len(samples)), classes] - zero[classes]
    errors = np.abs(found.maps.astype(np.float64).sum(axis=(1, 2)) - gained)
    largest = np.abs(gained).max()
    return float(errors.max() / largest) if largest > 0 else float(errors.max())


def check_completeness(role: str, model: Model, samples: Sample, classes: Integers, gates: Gates) -> tuple[Check, ...]:
    """Check a file whose method is complete; empty for other files.

    Args:
        role: role of the file.
        model: model file.
        samples: preprocessed samples.
        classes: explained classes.
        gates: the bounds.
    """
    method = SALIENCY_METHODS.get(model.metadata.outputs.method)
    if method is None or not method.is_complete or not model.has_map:
        return ()
    error = completeness_error(model, samples, classes)
    name = f"{role} contributions add up to the output"
    return (check_value(f"{role}_completeness", name, error, "<=", gates.completeness, "error"),)
