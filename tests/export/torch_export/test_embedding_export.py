"""Files of embedding models: prototypes as an optional input, embeddings as an output, in every precision."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from small_nets import CHANNELS, SPEC, HeadNet, randomised
from torch import Tensor, nn

from kdedge_export.familiarity.fitting import FamiliaritySamples
from kdedge_export.familiarity.graph import SIMILARITY
from kdedge_export.file_quantization import quantize
from kdedge_export.metrics.file_predictions import embed
from kdedge_export.saliency import CosineLayer
from kdedge_export.torch_export import wrap_for_export
from kdedge_export.verified_export import ExportedFile, export
from kdedge_runtime import Model
from kdedge_runtime.embedding import EMBEDDING, PROTOTYPES
from kdedge_runtime.errors import UsageError

SIZE, LABELS = 6, ("stop", "give way", "priority")


class Embedding(nn.Module):
    """Small embedding network."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = HeadNet(nn.Linear(CHANNELS, SIZE))
        self.similarity = CosineLayer(len(LABELS), SIZE)

    def forward(self, x: Tensor) -> Tensor:
        return self.similarity(self.encoder(x))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return randomised(Embedding(), seed)


def samples(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SPEC.shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportedFile:
    path = tmp_path_factory.mktemp("embedding") / "model.onnx"
    return export(network(), SPEC, LABELS, path, task=EMBEDDING)


@pytest.fixture(scope="module")
def int8(exported: ExportedFile) -> Model:
    path = quantize(exported.path, samples(24, 5)).path
    assert path is not None
    return Model.load(path, exact_sums=True)


def test_outputs_are_similarities_embeddings_and_their_largest(exported: ExportedFile) -> None:
    model, net = Model.load(exported.path), network()
    found = model.predict(samples(4))
    wrapped = wrap_for_export(net, SPEC)
    embeddings = net.encoder(wrapped.front_end(torch.from_numpy(samples(4)))).detach()
    unit = (embeddings / embeddings.norm(dim=1, keepdim=True)).numpy()
    assert found.embedding is not None and found.familiarity is not None
    assert np.allclose(found.embedding, unit, atol=1e-5)
    assert np.allclose(found.logits, unit @ net.similarity.prototypes.numpy().T, atol=1e-5)
    assert np.array_equal(found.familiarity, found.logits.max(axis=1))
    assert model.metadata.familiarity is not None and model.metadata.familiarity.method == SIMILARITY


@pytest.mark.parametrize("classes", [1, 2, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_other_prototypes_have_exact_similarities_and_maps(exported: ExportedFile, classes: int, seed: int) -> None:
    prototypes = np.random.default_rng(seed).normal(0, 3, (classes, SIZE)).astype(np.float32)
    model = Model.load(exported.path).with_classes([f"class {place}" for place in range(classes)], prototypes)
    net = network()
    net.similarity.prototypes = torch.from_numpy(prototypes)
    wrapped = wrap_for_export(net, SPEC)
    for explained in (None, classes - 1):
        found = model.predict(samples(3, seed), explained)
        wanted = torch.tensor([-1 if explained is None else explained])
        logits, maps, chosen = (each.detach().numpy() for each in wrapped(torch.from_numpy(samples(3, seed)), wanted))
        assert found.logits.shape == (3, classes) and found.saliency_map is not None
        assert np.allclose(found.logits, logits, atol=1e-5)
        assert np.array_equal(found.explained_class, chosen)
        assert np.abs(found.saliency_map - maps).max() <= 1e-4 * np.ptp(maps)


def test_int8_file_takes_the_same_classes(exported: ExportedFile, int8: Model) -> None:
    fp32, prototypes = Model.load(exported.path), np.eye(SIZE, dtype=np.float32)[:2]
    assert int8.metadata.precision == "int8"
    assert int8.metadata.embedding == fp32.metadata.embedding
    ours, theirs = (model.with_classes(["a", "b"], prototypes).predict(samples(8)) for model in (int8, fp32))
    assert ours.logits.shape == (8, 2)
    assert np.abs(ours.logits - theirs.logits).max() < 0.1
    assert not np.array_equal(ours.logits, theirs.logits)


def test_quantizing_a_file_keeps_its_prototypes(exported: ExportedFile, int8: Model) -> None:
    for path in (exported.path, int8.path):
        model = onnx.load(path)
        (stored,) = (each for each in model.graph.initializer if each.name == PROTOTYPES)
        assert np.allclose(onnx.numpy_helper.to_array(stored), network().similarity.prototypes.numpy())
        (port,) = (each for each in model.graph.input if each.name == PROTOTYPES)
        assert [each.dim_value for each in port.type.tensor_type.shape.dim] == [0, SIZE]


def test_id_depends_on_the_weights_only(exported: ExportedFile, tmp_path: Path) -> None:
    again, other = network(), network(1)
    again.similarity.prototypes *= -1
    found = [
        export(net, SPEC, LABELS, tmp_path / f"{name}.onnx", task=EMBEDDING).metadata.embedding
        for name, net in (("again", again), ("other", other))
    ]
    assert found[0] == exported.metadata.embedding
    assert found[1] is not None and exported.metadata.embedding is not None
    assert found[1] == replace(exported.metadata.embedding, id=found[1].id) != exported.metadata.embedding


def test_export_without_a_map_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--method none"):
        export(network(), SPEC, LABELS, tmp_path / "model.onnx", task=EMBEDDING, method="none")


class TestThreshold:
    KNOWN = 160

    def test_at_most_5_percent_of_known_samples_are_below_it(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(3)
        scenes = rng.integers(0, 256, (len(LABELS), *SPEC.shape), dtype=np.uint8)
        noise = rng.integers(-40, 40, (2 * self.KNOWN, *SPEC.shape))
        classes = np.arange(2 * self.KNOWN) % len(LABELS)
        images = np.clip(scenes[classes] + noise, 0, 255).astype(np.uint8)
        given = FamiliaritySamples(images[: self.KNOWN], classes[: self.KNOWN], images[self.KNOWN :])
        model = Model.load(
            export(network(), SPEC, LABELS, tmp_path / "model.onnx", task=EMBEDDING, familiarity=given).path
        )
        assert model.metadata.embedding is not None and model.metadata.familiarity is not None
        threshold = model.metadata.embedding.threshold
        embeddings = embed(model, images[: self.KNOWN])
        means = np.stack([embeddings[classes[: self.KNOWN] == each].mean(axis=0) for each in range(len(LABELS))])
        found = model.with_classes(LABELS, means, threshold).predict(images[self.KNOWN :])
        assert found.unknown is not None and 0 < found.unknown.sum() <= 0.05 * self.KNOWN
        assert threshold != model.metadata.familiarity.threshold
        int8 = quantize(model.path, images[:24], familiarity=given).path
        assert int8 is not None
        embedding = Model.load(int8).metadata.embedding
        assert embedding is not None and embedding.threshold is not None
        assert 0 < abs(embedding.threshold - threshold) < 0.1

    def test_none_without_samples(self, exported: ExportedFile) -> None:
        assert exported.metadata.embedding is not None and exported.metadata.embedding.threshold is None


def test_export_leaves_no_hook_behind(tmp_path: Path) -> None:
    net = network()
    export(net, SPEC, LABELS, tmp_path / "model.onnx", task=EMBEDDING)
    assert not net.similarity._forward_pre_hooks


def test_task_that_does_not_fit_the_network_is_an_error(tmp_path: Path) -> None:
    for net, task in ((network(), "classify"), (HeadNet(), EMBEDDING)):
        with pytest.raises(UsageError, match="does not fit"):
            export(net, SPEC, LABELS, tmp_path / "model.onnx", task=task)
