"""Output `familiarity` of exported files: statistics, every precision, threshold, and foreign files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_nets import SPEC, HeadNet, randomised
from torch import nn

import kdedge_export
from kdedge_export.familiarity import FamiliaritySamples
from kdedge_export.familiarity.discriminant import fit_discriminant
from kdedge_runtime import Model
from kdedge_runtime.errors import DataError, ModelFileError

LABELS = ("red", "green", "blue", "gray")


def colors(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw noisy images with a dominant primary color, or none, and their classes."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % 4
    images = rng.integers(0, 90, (count, SPEC.height, SPEC.width, 3))
    for index, number in enumerate(classes):
        if number < 3:
            images[index, ..., number] += 120
    return images.astype(np.uint8), classes


def network(*head: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return randomised(HeadNet(*(head or (nn.Linear(12, 4),))))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    training, targets = colors(120)
    samples = FamiliaritySamples(training, targets, colors(100, seed=1)[0])
    path = tmp_path_factory.mktemp("familiar") / "model.onnx"
    kdedge_export.export(network(), SPEC, LABELS, path, familiarity=samples)
    return path


def pooled(model: nn.Module, images: np.ndarray) -> np.ndarray:
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - torch.tensor(SPEC.mean)[:, None, None]) / torch.tensor(
        SPEC.std
    )[:, None, None]
    with torch.no_grad():
        return model.features(x).mean(dim=(2, 3)).numpy()


def test_output_equals_the_statistics_of_the_pooled_features(exported: Path) -> None:
    training, targets = colors(120)
    model, fitted = network(), fit_discriminant(pooled(network(), training), targets)
    assert fitted is not None
    for count, seed in ((1, 5), (7, 6)):
        images, _ = colors(count, seed)
        found = Model.load(exported, threads=1).predict(images).familiarity
        np.testing.assert_allclose(found, fitted.score(pooled(model, images)), atol=2e-4)


def test_noise_is_less_familiar_than_known_classes(exported: Path) -> None:
    model = Model.load(exported, threads=1)
    known = model.predict(colors(40, seed=3)[0])
    noise = model.predict(np.random.default_rng(0).integers(0, 256, (40, *SPEC.shape), dtype=np.uint8))
    assert known.familiarity is not None and noise.familiarity is not None
    assert np.median(noise.familiarity) < known.familiarity.min()
    assert noise.unknown is not None and noise.unknown.mean() > 0.9


def test_threshold_is_stored(exported: Path) -> None:
    stored = Model.load(exported, threads=1).metadata.familiarity
    assert stored is not None and stored.why_not is None
    assert (stored.method, stored.known) == ("discriminant-cosine", 100)
    assert stored.most_rejected is not None and stored.most_rejected <= 0.05
    found = Model.load(exported, threads=1).predict(colors(100, seed=1)[0])
    assert found.unknown is not None and found.unknown.sum() == stored.rejected


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_other_precisions_keep_output_and_threshold(exported: Path, tmp_path: Path, precision: str) -> None:
    converted = kdedge_export.quantize(
        exported, colors(60)[0], precision=precision, output=tmp_path / f"model.{precision}.onnx"
    )
    fp32, other = Model.load(exported, threads=1), Model.load(converted.path, threads=1, exact_sums=True)
    assert other.metadata.familiarity == fp32.metadata.familiarity
    images = np.concatenate([colors(30, seed=4)[0], np.full((2, *SPEC.shape), 255, np.uint8)])
    first, second = fp32.predict(images).familiarity, other.predict(images).familiarity
    np.testing.assert_allclose(second, first, atol=0.05 if precision == "int8" else 0.01)
    assert np.ptp(second) > 0.05


def test_threshold_of_another_precision_can_be_fitted_again(exported: Path, tmp_path: Path) -> None:
    known = colors(100, seed=1)[0]
    done = kdedge_export.quantize(
        exported, colors(60)[0], familiarity=FamiliaritySamples(known=known), output=tmp_path / "model.int8.onnx"
    )
    model = Model.load(done.path, threads=1, exact_sums=True)
    stored, first = model.metadata.familiarity, Model.load(exported, threads=1).metadata.familiarity
    assert stored is not None and first is not None and stored.threshold != first.threshold
    found = model.predict(known)
    assert found.unknown is not None and found.unknown.sum() == stored.rejected == first.rejected


def test_without_samples_the_output_is_the_energy(tmp_path: Path) -> None:
    done = kdedge_export.export(network(), SPEC, LABELS, tmp_path / "model.onnx")
    stored = done.metadata.familiarity
    assert stored is not None and (stored.method, stored.threshold) == ("energy", None) and stored.why_not
    found = Model.load(done.path, threads=1).predict(colors(5)[0])
    expected = np.log(np.exp(found.logits.astype(np.float64)).sum(axis=1))
    np.testing.assert_allclose(found.familiarity, expected, rtol=1e-5)
    assert found.unknown is not None and not found.unknown.any()


@pytest.mark.parametrize("method", ["none", "gradcam", "input-gradient"])
def test_output_for_every_kind_of_graph(tmp_path: Path, method: str) -> None:
    training, targets = colors(40)
    head = nn.Linear(12, 8), nn.Hardswish(), nn.Dropout(0.5), nn.Linear(8, 4)
    samples = FamiliaritySamples(training, targets)
    done = kdedge_export.export(
        network(*head), SPEC, LABELS, tmp_path / "model.onnx", method=method, familiarity=samples
    )
    found = Model.load(done.path, threads=1).predict(training)
    assert done.metadata.familiarity is not None and done.metadata.familiarity.method == "discriminant-cosine"
    assert found.familiarity is not None and np.ptp(found.familiarity) > 0 and np.abs(found.familiarity).max() < 1.001


def test_predicted_classes_replace_missing_targets(tmp_path: Path) -> None:
    training, _ = colors(60)
    samples = FamiliaritySamples(training, None, colors(80, seed=2)[0])
    done = kdedge_export.export(network(), SPEC, LABELS, tmp_path / "model.onnx", familiarity=samples)
    logits = Model.load(done.path, threads=1).predict(training).logits
    fitted = fit_discriminant(pooled(network(), training), logits.argmax(axis=1))
    assert fitted is not None and done.metadata.familiarity is not None
    found = Model.load(done.path, threads=1).predict(training).familiarity
    np.testing.assert_allclose(found, fitted.score(pooled(network(), training)), atol=2e-4)


def test_too_few_known_samples(tmp_path: Path) -> None:
    training, targets = colors(40)
    samples = FamiliaritySamples(training, targets, colors(58, seed=1)[0])
    stored = kdedge_export.export(
        network(), SPEC, LABELS, tmp_path / "m.onnx", familiarity=samples
    ).metadata.familiarity
    assert stored is not None and stored.threshold is None
    assert stored.why_not is not None and "58" in stored.why_not and "59" in stored.why_not


def test_features_that_are_not_finite_are_rejected(tmp_path: Path, break_weights: Callable[[nn.Module], None]) -> None:
    training, targets = colors(20)
    broken = network()
    break_weights(broken)
    with pytest.raises((DataError, ModelFileError)):
        kdedge_export.export(
            broken, SPEC, LABELS, tmp_path / "m.onnx", familiarity=FamiliaritySamples(training, targets)
        )
    assert not (tmp_path / "m.onnx").exists()


@pytest.fixture
def break_weights() -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        model.features[0].weight.data[0, 0, 0, 0] = float("nan")  # type: ignore[union-attr, operator, index]

    return change
