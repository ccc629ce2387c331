"""Agreement of two models' predictions, and their correctness: pure functions on logits, float `[N, K]`.

Scores are float64 `[N]`, one per sample; NaN is handled where they are aggregated.
"""

import numpy as np

from kdedge_export.metrics.map_similarity import map_error
from kdedge_export.metrics.scores import Scores
from kdedge_runtime.util.arrays import Floats, Integers, Targets

__all__ = [
    "accuracy_drop",
    "agreement",
    "agrees",
    "centered",
    "distance",
    "is_right",
    "kl_divergence",
    "logits_error",
    "top1",
    "top1_accuracy",
]


def top1(logits: Floats) -> Integers:
    """Return the top-1 class of each sample, int64 `[N]`; -1 if its logits are not finite."""
    finite = np.isfinite(logits).all(axis=1)
    return np.where(finite, logits.argmax(axis=1), -1).astype(np.int64)


def is_right(logits: Floats, targets: Targets) -> Scores:
    """Return the correctness of each prediction, `[N]`, 1.0 or 0.0.

    Args:
        logits: float `[N, K]`.
        targets: int64 `[N]`.
    """
    return np.asarray(top1(logits) == targets, dtype=np.float64)


def accuracy_drop(lost: Scores) -> float:
    """Compute the mean of per-sample losses `[N]` in percentage points.

    Summing whole samples first is exact; the difference of two fractions could round a drop of one point above one.
    """
    return 100 * float(lost.sum()) / len(lost)


def top1_accuracy(logits: Floats, targets: Targets) -> float:
    """Compute the top-1 accuracy in [0, 1].

    Args:
        logits: float `[N, K]`.
        targets: int64 `[N]`.
    """
    return float(is_right(logits, targets).mean())


def agrees(reference: Floats, candidate: Floats) -> Scores:
    """Return per-sample top-1 agreement, `[N]`, 1.0 or 0.0; two invalid predictions do not agree.

    Args:
        reference: logits, float `[N, K]`.
        candidate: logits of the same samples.
    """
    prediction = top1(reference)
    return np.asarray((prediction == top1(candidate)) & (prediction >= 0), dtype=np.float64)


def agreement(reference: Floats, candidate: Floats) -> float:
    """Compute the fraction of samples in [0, 1] with the same top-1 class.

    Args:
        reference: logits, float `[N, K]`.
        candidate: logits of the same samples.
    """
    return float(agrees(reference, candidate).mean())


def kl_divergence(reference: Floats, candidate: Floats) -> Scores:
    """Compute KL(reference || candidate) of the softmax at temperature 1, in nats, `[N]`, ≥ 0 up to rounding.

    Args:
        reference: logits, float `[N, K]`.
        candidate: logits of the same samples.
    """
    log_p, log_q = _log_softmax(reference), _log_softmax(candidate)
    return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(axis=1))


def logits_error(reference: Floats, candidate: Floats) -> Scores:
    """Compute the largest logit difference relative to the reference's range, `[N]`, ≥ 0; NaN if not finite.

    Args:
        reference: logits, float `[N, K]`.
        candidate: logits of the same samples.
    """
    return map_error(reference[:, None], candidate[:, None])


def centered(logits: Floats) -> Scores:
    """Subtract the mean of each row, which the softmax ignores, float64 `[N, K]`."""
    return np.asarray(logits.astype(np.float64) - logits.mean(axis=1, keepdims=True))


def distance(reference: Floats | Scores, candidate: Floats | Scores) -> Scores:
    """Compute the distance of logits relative to the sum of their norms, `[N]` in [0, 1].

    Logits scaled by 3 score 0.5 and those scaled by 1/10 score 0.82. An error of 20% of the norm scores 0.1. Logits
    that are not finite score 1.

    Args:
        reference: logits, float `[N, K]`, without what the task ignores (`TaskMetrics.centered`).
        candidate: such logits of the same samples.
    """
    a, b = (some.astype(np.float64) for some in (reference, candidate))
    sizes = np.linalg.norm(a, axis=1) + np.linalg.norm(b, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(sizes == 0, 0.0, np.linalg.norm(b - a, axis=1) / sizes)
    distances: Scores = np.nan_to_num(found, nan=1.0)
    return distances


def _log_softmax(logits: Floats) -> Scores:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
