"""Familiarity added to existing files: foreign ones, quantized ones, and again."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from import_checks import HALF
from onnx_toys import CLASSES, SIDE, body, head, write

import kdedge_export
from kdedge_export import FamiliaritySamples
from kdedge_export.onnx_import import add_saliency
from kdedge_runtime import Model
from kdedge_runtime.familiarity import FAMILIARITY


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    return add_saliency(write(tmp_path / "theirs.onnx", body() + head()), tmp_path / "ours.onnx", pixels=HALF).path


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def test_foreign_file_has_the_energy(imported: Path) -> None:
    model = Model.load(imported, threads=1)
    stored = model.metadata.familiarity
    assert stored is not None and (stored.method, stored.threshold) == ("energy", None)
    assert stored.why_not is not None and "--data" in stored.why_not
    found = model.predict(images(3))
    np.testing.assert_allclose(found.familiarity, np.log(np.exp(found.logits).sum(axis=1)), rtol=1e-4)


def test_samples_replace_the_energy(imported: Path) -> None:
    before = Model.load(imported, threads=1).predict(images(4))
    samples = FamiliaritySamples(images(60), np.arange(60) % CLASSES, images(80, seed=1))
    metadata = kdedge_export.add_familiarity(imported, samples)
    model = Model.load(imported, threads=1)
    assert metadata.familiarity is not None and metadata.familiarity.threshold is not None
    assert model.metadata.familiarity == metadata.familiarity and metadata.familiarity.known == 80
    after = model.predict(images(4))
    np.testing.assert_array_equal(after.logits, before.logits)
    np.testing.assert_array_equal(after.saliency_map, before.saliency_map)
    assert after.familiarity is not None and np.abs(after.familiarity).max() <= 1.001
    graph = onnx.load(imported).graph
    assert [value.name for value in graph.output].count(FAMILIARITY) == 1
    assert not any(node.op_type == "ReduceLogSumExp" for node in graph.node)


def test_fitting_twice_gives_the_same_file(imported: Path) -> None:
    samples = FamiliaritySamples(images(60), np.arange(60) % CLASSES, images(80, seed=1))
    kdedge_export.add_familiarity(imported, samples)
    once = Model.load(imported, threads=1).predict(images(4)).familiarity
    size = imported.stat().st_size
    kdedge_export.add_familiarity(imported, samples)
    np.testing.assert_allclose(Model.load(imported, threads=1).predict(images(4)).familiarity, once, atol=1e-6)
    assert abs(imported.stat().st_size - size) < 200


def test_quantized_foreign_file_keeps_it(imported: Path, tmp_path: Path) -> None:
    samples = FamiliaritySamples(images(60), np.arange(60) % CLASSES, images(80, seed=1))
    kdedge_export.add_familiarity(imported, samples)
    int8 = kdedge_export.quantize(imported, images(40), output=tmp_path / "ours.int8.onnx").path
    fp32, other = Model.load(imported, threads=1), Model.load(int8, threads=1, exact_sums=True)
    assert other.metadata.familiarity == fp32.metadata.familiarity
    found, expected = other.predict(images(8)).familiarity, fp32.predict(images(8)).familiarity
    np.testing.assert_allclose(found, expected, atol=0.2)
