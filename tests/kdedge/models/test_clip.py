"""Zero-shot classifiers of OpenCLIP: names, weights, logits and maps against the library and against autograd."""

import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from clip_toys import REPOSITORY, TAG, checkpoint, define_networks, network
from torch.nn import functional as F
from weight_server import WeightServer

from kdedge.models.artifacts import Artifacts
from kdedge.models.clip import clip_name, find_published_clip
from kdedge.models.model_names import canonical_name
from kdedge.models.network_weights import reload_weights
from kdedge.models.teacher_source import load_teacher, reload_teacher
from kdedge.models.trained_model import load_trained
from kdedge.models.zero_shot import DEFAULT_PROMPT, ZeroShot
from kdedge.pipelines.exported_files import open_files
from kdedge.pipelines.model_export import export_model
from kdedge_export.saliency import make_explained
from kdedge_runtime import Model
from kdedge_runtime.devices import load_profile
from kdedge_runtime.errors import MissingDependency, UsageError

NAMES = ZeroShot(("cat", "dog", "empty bowl"))
NETWORKS = ("tiny-vit", "tiny-rn", "tiny-coca")


@pytest.fixture(scope="module", autouse=True)
def networks(tmp_path_factory: pytest.TempPathFactory) -> None:
    define_networks(tmp_path_factory.mktemp("configs"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return checkpoint("tiny-vit", tmp_path / "clip.safetensors")


class TestClasses:
    @pytest.mark.parametrize("classes", [("cat",), ("cat", ""), ("cat", "cat"), ()])
    def test_invalid_classes(self, classes: tuple[str, ...]) -> None:
        with pytest.raises(UsageError, match="--classes"):
            ZeroShot.of(classes, ())

    @pytest.mark.parametrize("prompt", ["a photo", "{} and {}", "a {name}", "a {} {"])
    def test_invalid_prompts(self, prompt: str) -> None:
        with pytest.raises(UsageError, match=r"prompt .* \{\}"):
            ZeroShot.of(("a", "b"), (prompt,))

    def test_default_prompt(self) -> None:
        assert ZeroShot.of((" cat", "dog "), ()) == ZeroShot(("cat", "dog"), (DEFAULT_PROMPT,))


class TestNames:
    def test_tags_of_the_library(self) -> None:
        name = "clip:ViT-B-32/laion2b_s34b_b79k"
        assert clip_name(name) == name
        published = find_published_clip(name)
        assert published is not None and published.repository == "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
        assert find_published_clip("clip:ViT-B-32") is None

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("clip:ViT-B-23", r"no network 'ViT-B-23'.*clip:ViT-B-32"),
            ("clip:hf-hub:acme/tiny", r"Hugging Face Hub.*clip:MODEL/TAG"),
            ("clip:local-dir:/models/tiny", r"is a location.*--teacher-weights FILE"),
            ("clip:ViT-B-32/laion", r"no weights 'laion' of ViT-B-32.*laion2b_s34b_b79k"),
        ],
    )
    def test_unknown_names(self, name: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            clip_name(name)

    def test_zero_shot_classifiers_are_not_trained(self) -> None:
        with pytest.raises(UsageError, match=r"--teacher clip:tiny-vit.*--classes"):
            canonical_name("clip:tiny-vit")

    def test_missing_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "open_clip", None)
        with pytest.raises(MissingDependency, match=r"\[open_clip\]"):
            load_trained("clip:ViT-B-32/openai", zero_shot=NAMES)

    def test_missing_classes_and_weights(self, file: Path) -> None:
        with pytest.raises(UsageError, match=r"--classes"):
            load_trained("clip:tiny-vit", weights=file)
        with pytest.raises(UsageError, match=r"needs trained weights.*--teacher-weights FILE"):
            load_trained("clip:tiny-vit", zero_shot=NAMES)
        with pytest.raises(UsageError, match=r"has its own classes.*Remove --classes"):
            load_trained("small:resnet8", weights=file, zero_shot=NAMES)

    def test_runs_have_their_own_classes(self, exported_run: Path) -> None:
        with pytest.raises(UsageError, match=r"has its own classes.*Remove --classes"):
            load_trained(str(exported_run), zero_shot=NAMES)

    def test_damaged_and_foreign_files(self, file: Path) -> None:
        file.write_bytes(file.read_bytes()[:1000])
        with pytest.raises(UsageError, match=r"Cannot load clip:tiny-vit from .*clip\.safetensors"):
            load_trained("clip:tiny-vit", weights=file, zero_shot=NAMES)
        checkpoint("tiny-rn", file)
        with pytest.raises(UsageError, match="exactly this network"):
            load_trained("clip:tiny-vit", weights=file, zero_shot=NAMES)

    def test_unsupported_image_encoder(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        forward = open_clip.transformer.VisionTransformer.forward
        monkeypatch.setattr(
            open_clip.transformer.VisionTransformer, "forward", lambda self, x: {"features": forward(self, x)}
        )
        with pytest.raises(UsageError, match="image encoder returns one vector"):
            load_trained("clip:tiny-vit", weights=file, zero_shot=NAMES)


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_scaled_cosine_similarities(name: str, tmp_path: Path) -> None:
    """The reference uses both encoders of the library; two prompts are averaged."""
    prompts = ("a photo of a {}", "a drawing of a {}")
    file = checkpoint(name, tmp_path / "clip.safetensors")
    trained = load_trained(f"clip:{name}", weights=file, zero_shot=ZeroShot(NAMES.classes, prompts))
    reference, tokenizer = network(name), open_clip.get_tokenizer(name)
    images = torch.randn(2, 3, trained.input.height, trained.input.width)
    with torch.no_grad():
        texts = [
            F.normalize(
                sum(reference.encode_text(tokenizer([prompt.format(label)]), normalize=True) for prompt in prompts)
            )
            for label in NAMES.classes
        ]
        expected = reference.logit_scale.exp() * reference.encode_image(images, normalize=True) @ torch.cat(texts).T
        assert torch.allclose(trained.model(images), expected, atol=1e-4)
    assert trained.labels == NAMES.classes
    assert trained.input.mean == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    assert trained.input.interpolation == "bicubic"


def test_map_of_the_residual_network_equals_autograd(tmp_path: Path) -> None:
    file = checkpoint("tiny-rn", tmp_path / "clip.safetensors")
    model = load_trained("clip:tiny-rn", weights=file, zero_shot=NAMES).model.eval()
    images = torch.randn(2, 3, 128, 128)
    explained = make_explained(model, images[:1])
    seen: list[torch.Tensor] = []
    handle = model.visual.layer4.register_forward_hook(lambda _module, _args, output: seen.append(output))
    for index in range(3):
        output = explained(images)
        maps = explained.class_maps(output, torch.full((2, 1), index))[:, 0]
        logits = model(images)
        (gradient,) = torch.autograd.grad(logits[:, index].sum(), seen[-1])
        expected = (gradient * seen[-1]).sum(dim=1)
        assert torch.allclose(maps, expected, atol=1e-5 * float(expected.detach().abs().max()))
    handle.remove()


@pytest.mark.parametrize("name", NETWORKS)
def test_export_and_its_model(name: str, tmp_path: Path) -> None:
    file = checkpoint(name, tmp_path / "clip.safetensors")
    zero_shot, path = ZeroShot(NAMES.classes, ("a drawing of a {}",)), tmp_path / "m.onnx"
    export_model(f"clip:{name}", weights=file, zero_shot=zero_shot, output=path, profile=load_profile("generic"))
    exported = Model.load(path)
    assert exported.metadata.labels == NAMES.classes and exported.has_map
    student = open_files(Artifacts.open(path), file).student
    assert student is not None and student.zero_shot == zero_shot, "prompts are in the lineage"
    size = exported.metadata.input.height
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    found = exported.predict(images)
    mean, std = student.input.mean, student.input.std
    x = torch.from_numpy((images / 255 - mean) / std).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        np.testing.assert_allclose(found.logits, student.model.eval()(x).numpy(), atol=1e-3)
    assert np.abs(found.saliency_map).max() > 0


def test_published_weights(weight_server: WeightServer, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = open_clip.pretrained._slpcfg(hf_hub=f"{REPOSITORY}/")
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-vit", {TAG: config})
    weight_server.publish(REPOSITORY, "open_clip_model.safetensors", file.read_bytes())
    name = f"clip:tiny-vit/{TAG}"
    teacher = load_teacher(name, None, NAMES)
    assert teacher.record["url"] == f"{weight_server.address}/{REPOSITORY}" and teacher.record["weights"] is None
    assert (teacher.record["classes"], teacher.record["prompts"]) == (list(NAMES.classes), [DEFAULT_PROMPT])
    assert teacher.input.resize == "squash" and teacher.input.mean == (0.5, 0.5, 0.5), "preprocessing of the tag"
    again = reload_teacher(teacher.record)
    assert again.record == teacher.record
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.model.model(images), teacher.model.model(images))
    assert reload_weights(teacher.record, "run", find_published_clip).sha256 == teacher.record["weights_sha256"]
    assert "OpenCLIP" in teacher.model.weights.summary
