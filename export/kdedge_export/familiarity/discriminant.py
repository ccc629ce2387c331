"""Cosine similarity to class means after linear discriminant analysis.

Features are centered and projected to axes in which the within-class covariance is the identity. The score of a sample
is its largest cosine to a class mean there, in [-1, 1].

Sources: linear discriminant analysis of Rao, The Utilization of Multiple Measurements in Problems of Biological
Classification, 1948; cosine scoring after it of Dehak et al., Front-End Factor Analysis for Speaker Verification, 2011.
The covariance is shrunk towards a multiple of the identity (Ledoit and Wolf, 2004), by a fixed share. See
`.github/docs/benchmarks/familiarity.md` for the comparison with other scores.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdedge_runtime.errors import DataError
from kdedge_runtime.util.arrays import Floats, Integers

__all__ = ["Discriminant", "fit_discriminant"]

_SHRINKAGE = 0.1
"""Share of the identity in the within-class covariance."""
_MAX_AXES = 64
"""Default of the maximum number of axes, which limits the size of the file for many classes."""


@dataclass(frozen=True)
class Discriminant:
    """Projection of features, and class means of unit length in it."""

    projection: Floats
    """Matrix `[D, r]`."""
    offset: Floats
    """Projected center of the features with opposite sign, `[r]`."""
    means: Floats
    """Class means of unit length `[r, k]`, one column per class with training samples."""

    def score(self, features: Floats) -> Floats:
        """Return the largest cosine to a class mean `[N]` of features `[N, D]`."""
        projected = features @ self.projection + self.offset
        lengths = np.linalg.norm(projected, axis=1, keepdims=True)
        cosines = np.divide(projected, lengths, out=np.zeros_like(projected), where=lengths > 0) @ self.means
        result: Floats = cosines.max(axis=1).astype(np.float32)
        return result


def fit_discriminant(features: Floats, classes: Integers, most_axes: int = _MAX_AXES) -> Discriminant | None:
    """Fit the projection and the class means.

    Args:
        features: pooled features of training samples, float32 `[N, D]`.
        classes: class of each sample, int64 `[N]`.
        most_axes: maximum number of axes, r.

    Returns:
        The statistics, or None if they are undefined: with fewer than two classes, no variance within classes, or
        equal class means.

    Raises:
        DataError: a feature is not finite.
    """
    exact = features.astype(np.float64)
    if not np.isfinite(exact).all():
        raise DataError(
            "The features of the training samples are not finite, so familiarity has no statistics. Expected finite "
            "features: train the model again with a lower learning rate, or check the samples."
        )
    present, numbers = np.unique(classes, return_inverse=True)
    if len(present) < 2:
        return None
    means = np.stack([exact[numbers == each].mean(axis=0) for each in range(len(present))])
    center = means.mean(axis=0)
    basis = _basis(exact - center, most_axes)
    whitening = _whitening((exact - means[numbers]) @ basis, exact.shape[1])
    if whitening is None:
        return None
    axes = _axes((means - center) @ basis @ whitening, most_axes)
    projection = basis @ (whitening @ axes)
    projected = (means - center) @ projection
    lengths = np.linalg.norm(projected, axis=1)
    if not (lengths > 0).all():
        return None
    return Discriminant(
        projection.astype(np.float32),
        (-center @ projection).astype(np.float32),
        (projected / lengths[:, None]).T.astype(np.float32),
    )


def _basis(centered: NDArray[np.float64], most_axes: int) -> NDArray[np.float64]:
    """Return orthonormal columns `[D, m]` that span centered features `[N, D]`, with m at most N or the maximum axes.

    Class means and residuals lie in their span. Outside it the shrunk covariance is a multiple of the identity, which
    needs no decomposition: its cost is cubic in m, and linear in D. Few samples leave axes outside the span. Unfamiliar
    samples differ along any of them, so random ones are taken.
    """
    samples, features = centered.shape
    if features <= max(samples, most_axes):
        return np.eye(features)
    further = np.random.default_rng(0).normal(size=(max(0, most_axes - samples), features))
    basis, _ = np.linalg.qr(np.concatenate([centered, further]).T)
    return basis


def _whitening(residuals: NDArray[np.float64], features: int) -> NDArray[np.float64] | None:
    """Return a matrix `[m, m]` that maps the shrunk covariance of residuals to the identity, leading axes last.

    Args:
        residuals: residuals `[N, m]` in their basis.
        features: number of features D, over which their variance is averaged.
    """
    covariance = residuals.T @ residuals / len(residuals)
    mean = float(np.trace(covariance)) / features
    if not mean > 0:
        return None
    identity = np.eye(len(covariance))
    variances, axes = np.linalg.eigh((1 - _SHRINKAGE) * covariance + _SHRINKAGE * mean * identity)
    whitening: NDArray[np.float64] = axes / np.sqrt(variances)
    return whitening


def _axes(means: NDArray[np.float64], most_axes: int) -> NDArray[np.float64]:
    """Return orthonormal axes `[D, r]`: those of the class means `[k, D]`, then the leading ones of the features.

    Class means have few axes, and a cosine needs several: for two classes it would always be 1 on the only one.
    """
    size = means.shape[1]
    _, _, spanned = np.linalg.svd(means, full_matrices=False)
    spanned = spanned[: min(len(means) - 1, most_axes)].T
    others = np.eye(size)[:, ::-1][:, : max(0, min(most_axes, size) - spanned.shape[1])]
    others = others - spanned @ (spanned.T @ others)
    axes, _ = np.linalg.qr(np.concatenate([spanned, others], axis=1))
    return axes
