"""Discriminant cosine: projection, score, and undefined statistics."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from kdedge_export.familiarity.discriminant import fit_discriminant
from kdedge_export.metrics.auroc import auroc
from kdedge_runtime.errors import DataError


def clusters(classes: int, size: int = 24, per_class: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features of classes with a strong common variance, their classes, and features of a further class."""
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 2, (classes + 1, size))
    spread = np.linspace(0.2, 4, size)
    numbers = np.repeat(np.arange(classes + 1), per_class)
    features = (centers[numbers] + rng.normal(size=(len(numbers), size)) * spread).astype(np.float32)
    known = numbers < classes
    return features[known], numbers[known], features[~known]


def test_score_is_a_cosine_that_separates_a_further_class() -> None:
    features, classes, others = clusters(6)
    fitted = fit_discriminant(features[::2], classes[::2])
    assert fitted is not None
    known, unfamiliar = fitted.score(features[1::2]), fitted.score(others)
    assert known.dtype == np.float32 and known.shape == (len(features[1::2]),)
    assert known.max() <= 1 + 1e-5 and unfamiliar.min() >= -1 - 1e-5
    assert auroc(known, unfamiliar) > 0.9


def test_first_axes_span_those_of_linear_discriminant_analysis() -> None:
    features, classes, _ = clusters(4)
    fitted = fit_discriminant(features, classes)
    assert fitted is not None
    reference = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.1).fit(features, classes)
    ours, theirs = fitted.projection[:, :3], reference.scalings_[:, :3]
    rest = theirs - ours @ np.linalg.lstsq(ours, theirs, rcond=None)[0]
    assert np.linalg.norm(rest) < 0.05 * np.linalg.norm(theirs)


def test_within_class_covariance_becomes_the_identity() -> None:
    features, classes, _ = clusters(4, per_class=400)
    fitted = fit_discriminant(features, classes)
    assert fitted is not None
    projected = features @ fitted.projection
    means = np.stack([projected[classes == each].mean(axis=0) for each in range(4)])
    covariance = np.cov((projected - means[classes]).T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.35
    assert 0.6 < np.median(np.diag(covariance)) < 1.1  # below 1 by the share of the identity


def test_two_classes_have_more_axes_than_their_difference() -> None:
    features, classes, others = clusters(2)
    fitted = fit_discriminant(features, classes)
    assert fitted is not None and fitted.projection.shape[1] == features.shape[1]
    assert auroc(fitted.score(features), fitted.score(others)) > 0.9


def test_many_features_are_reduced_to_64_axes() -> None:
    features, classes, _ = clusters(5, size=90)
    fitted = fit_discriminant(features, classes)
    assert fitted is not None and fitted.projection.shape == (90, 64) and fitted.means.shape == (64, 5)


def dense_scores(features: np.ndarray, classes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the scores of others by the covariance of all features, `[D, D]`."""
    means = np.stack([features[classes == each].mean(axis=0) for each in np.unique(classes)]).astype(np.float64)
    covariance = (residuals := features - means[classes]).T @ residuals / len(features)
    shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    variances, axes = np.linalg.eigh(shrunk)
    root = (axes / np.sqrt(variances)) @ axes.T
    center = means.mean(axis=0)
    spanned = np.linalg.svd((means - center) @ root, full_matrices=False)[2][: len(means) - 1]
    span, _ = np.linalg.qr(np.concatenate([spanned, axes[:, ::-1].T[: 64 - len(spanned)]]).T)
    projected, own = ((each - center) @ root @ span for each in (others, means))
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    return (projected @ own.T / np.linalg.norm(projected, axis=1, keepdims=True)).max(axis=1)


@pytest.mark.parametrize(("size", "per_class"), [(24, 40), (200, 40), (500, 40), (500, 25)])
def test_wide_features_score_as_with_their_whole_covariance(size: int, per_class: int) -> None:
    features, classes, others = clusters(4, size, per_class)
    fitted = fit_discriminant(features, classes)
    assert fitted is not None
    for samples in (features, others):
        assert np.abs(fitted.score(samples) - dense_scores(features, classes, samples)).max() < 1e-5


def test_no_decomposition_is_larger_than_the_number_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    decompose = np.linalg.eigh

    def checked(matrix: np.ndarray) -> object:
        assert len(matrix) <= 300
        return decompose(matrix)

    monkeypatch.setattr(np.linalg, "eigh", checked)
    features, classes, others = clusters(6, size=9216, per_class=50)
    fitted = fit_discriminant(features, classes)
    assert fitted is not None and fitted.projection.shape == (9216, 64)
    assert auroc(fitted.score(features), fitted.score(others)) > 0.9


def test_few_samples_have_axes_outside_their_span() -> None:
    features, classes, _ = clusters(3, size=200, per_class=10)
    fitted = fit_discriminant(features, classes)
    assert fitted is not None and fitted.projection.shape == (200, 64)
    assert np.linalg.matrix_rank(fitted.projection) == 64
    outside = np.random.default_rng(1).normal(size=(20, 200))
    _, _, span = np.linalg.svd(features, full_matrices=False)
    outside -= outside @ span.T @ span
    within = fitted.score(features)
    assert (fitted.score((features[:20] + 5 * outside).astype(np.float32)) < within[:20] - 0.2).all()


def test_classes_without_samples_have_no_mean() -> None:
    features, classes, _ = clusters(3)
    fitted = fit_discriminant(features, classes * 5)
    assert fitted is not None and fitted.means.shape[1] == 3


def test_zero_projection_scores_zero() -> None:
    features, classes, _ = clusters(3)
    fitted = fit_discriminant(features, classes)
    assert fitted is not None
    center = np.linalg.lstsq(fitted.projection.T, -fitted.offset, rcond=None)[0]
    assert np.isfinite(fitted.score(center[None].astype(np.float32))).all()


@pytest.mark.parametrize(
    ("features", "classes"),
    [
        (np.random.default_rng(0).normal(size=(20, 4)), np.zeros(20, np.int64)),
        (np.ones((20, 4)), np.arange(20) % 2),
        (np.eye(2)[np.arange(20) % 2], np.arange(20) % 2),
    ],
    ids=["one class", "constant features", "no variance within classes"],
)
def test_undefined_statistics(features: np.ndarray, classes: np.ndarray) -> None:
    assert fit_discriminant(features.astype(np.float32), classes) is None


def test_features_that_are_not_finite_are_rejected() -> None:
    features, classes, _ = clusters(3)
    features[7, 2] = np.nan
    with pytest.raises(DataError, match="not finite"):
        fit_discriminant(features, classes)
