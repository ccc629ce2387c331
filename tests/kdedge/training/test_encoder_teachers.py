"""Encoders without classes, such as DINOv2, teach pooled features; other losses are rejected in one sentence."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from training_toys import Listener, write_scenes
from weight_server import WeightServer, publish_timm

from kdedge.cli.training_checks import check_training_options
from kdedge.config.train_config import TrainConfig
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.network_state import read_network_state
from kdedge.models.run_folder import BEST, LAST, write_run
from kdedge.models.trained_model import load_trained
from kdedge.models.weight_files import load_state
from kdedge.pipelines.model_export import export_model
from kdedge.pipelines.model_validation import validate_model
from kdedge.pipelines.run_comparison import compare_runs
from kdedge.training.compute_device import choose_device
from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.layer_pairs import channels, pair_layers
from kdedge.training.pooled_features import POOLED
from kdedge.training.training_run import continue_run, start_run
from kdedge_runtime.devices import load_profile
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.image import ImageInput

CPU = choose_device("cpu")
SMALL = "small:resnet8"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("tiny"), train=4, val=2)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small vision transformer without classes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "vit.safetensors"
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), path)
    return path


@pytest.fixture
def request_for_features(tiny: Path, encoder: Path) -> TrainConfig:
    return TrainConfig(
        str(tiny), SMALL, teacher=("timm:test_vit",), teacher_weights=(str(encoder),), loss="ce:1,hint", epochs=1
    )


def watched(name: str, classes: int) -> InstrumentedModel:
    torch.manual_seed(0)
    spec = ImageInput(64, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return InstrumentedModel(build_model(ModelSpec(name, classes), 64), spec, CPU, is_headless=classes == 0).eval()


class TestPooledFeatures:
    @pytest.mark.parametrize(
        "name",
        ["small:resnet8", "torchvision:mobilenet_v3_small", "torchvision:squeezenet1_1", "timm:test_efficientnet"],
    )
    def test_input_of_the_classifier(self, name: str) -> None:
        """The classifier of the pooled features gives the logits, also if it is applied before pooling."""
        model = watched(name, 5)
        model.watch([POOLED])
        images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            output = model(images)
        (features,) = output.features
        assert features.shape == (3, channels(model, [POOLED])[0], 1, 1)
        layer = [layer for layer in model.model.modules() if getattr(layer, "weight", None) is not None][-1]
        weight = layer.weight.flatten(1)
        if name != "torchvision:squeezenet1_1":  # a ReLU follows its classifier
            expected = features.flatten(1) @ weight.T + layer.bias
            assert torch.allclose(output.logits, expected, atol=1e-5)

    @pytest.mark.parametrize("name", ["timm:resnet18", "timm:test_efficientnet"])
    def test_output_of_an_encoder(self, name: str) -> None:
        model = watched(name, 0)
        model.watch([POOLED])
        images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
        with torch.no_grad():
            output = model(images)
        assert torch.equal(output.features[0].flatten(1), output.logits)
        assert model.unexplained is not None and "no classes" in model.unexplained

    def test_pairs(self) -> None:
        student, encoder, teacher = watched(SMALL, 3), watched("timm:resnet18", 0), watched("timm:resnet18", 3)
        assert pair_layers(student, encoder, {}) == ((POOLED, POOLED),)
        assert POOLED not in [path for pair in pair_layers(student, teacher, {}) for path in pair]
        assert pair_layers(student, teacher, {POOLED: POOLED}) == ((POOLED, POOLED),)

    def test_unknown_classifier(self) -> None:
        model = watched(SMALL, 3)
        model.model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        with pytest.raises(UsageError, match="no linear layer or convolution as its classifier"):
            model.watch([POOLED])


class TestTraining:
    def test_features_are_learned(self, request_for_features: TrainConfig, tmp_path: Path) -> None:
        listener = Listener()
        request = replace(request_for_features, epochs=12, lr=0.05)
        record = start_run(request, tmp_path / "run", listener, "cpu")
        first, last = (listener.epochs[index]["loss_hint"] for index in (0, -1))
        assert last < 0.9 * first
        assert "val_agreement" not in listener.epochs[-1], "the teacher has no predictions"
        (teacher,) = [value for name, value in listener.plan if name == "teacher"]
        assert "features" in teacher and "top-1" not in teacher
        assert record.input.height == 32, "not the teacher's size"
        assert load_file(tmp_path / "run" / LAST)["training.projection.0.weight"].shape[:2] == (64, 64)

    def test_resume(self, request_for_features: TrainConfig, tmp_path: Path) -> None:
        record = start_run(request_for_features, tmp_path / "run", Listener(), "cpu")
        assert record.teacher is not None
        write_run(tmp_path / "run", replace(record, result=None))
        assert continue_run(request_for_features, tmp_path / "run", Listener(), "cpu").result is not None

    @pytest.mark.parametrize(
        ("loss", "message"),
        [
            (None, r"encoder without classes.*--loss ce,hint"),
            ("ce,kd", r"encoder without classes.*--loss ce,hint"),
            ("ce,hint,mapall", r"encoder without classes.*maps"),
            ("ce,at", r"at compares spatial features.*--loss ce,hint"),
        ],
    )
    def test_other_losses(
        self, request_for_features: TrainConfig, tmp_path: Path, loss: str | None, message: str
    ) -> None:
        with pytest.raises(UsageError, match=message) as caught:
            start_run(replace(request_for_features, loss=loss), tmp_path / "run", Listener(), "cpu")
        assert "\n" not in str(caught.value)

    def test_teacher_with_other_classes(self, tiny: Path, weight_server: WeightServer, tmp_path: Path) -> None:
        """A published network of 1000 classes teaches features, but not its predictions."""
        publish_timm(weight_server, "test_efficientnet")
        request = TrainConfig(str(tiny), SMALL, teacher=("timm:test_efficientnet",), epochs=1, size=32, loss="ce,hint")
        record = start_run(request, tmp_path / "run", Listener(), "cpu")
        assert record.result is not None and record.teacher is not None
        with pytest.raises(UsageError, match=r"has 1000 classes.*kdedge train .*test_efficientnet.*--loss ce,hint"):
            start_run(replace(request, loss="ce,kd"), tmp_path / "other", Listener(), "cpu")


class TestEncoder:
    def test_published_encoder(self, weight_server: WeightServer) -> None:
        """DINOv2's class token has no layer, and timm lists it without classes."""
        name = "vit_small_patch14_dinov2"
        assert timm.get_pretrained_cfg(name).num_classes == 0
        publish_timm(weight_server, name)
        trained = load_trained(f"timm:{name}")
        assert trained.labels == () and trained.input.height == 224, "not 518"
        assert trained.model(torch.zeros(1, 3, 224, 224)).shape == (1, 384)
        assert trained.origin["source"] == f"timm:{name}.lvd142m"

    def test_position_embeddings_are_interpolated(self, encoder: Path) -> None:
        state = read_network_state("timm:vit_tiny_patch16_224", _vit_tiny(encoder.parent / "tiny.safetensors"), 96)
        model = build_model(ModelSpec("timm:vit_tiny_patch16_224", 1000), 96)
        load_state(model, state, "tiny")
        native = load_file(encoder.parent / "tiny.safetensors")["pos_embed"]
        grid = native[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
        expected = F.interpolate(grid, (6, 6), mode="bicubic", antialias=True).flatten(2).mT
        assert torch.allclose(model.pos_embed[:, 1:], expected, atol=1e-5)
        with pytest.raises(UsageError, match=r"cannot take images of 90 × 90 px.*--size \(such as 224\)"):
            build_model(ModelSpec("timm:xcit_nano_12_p16_224", 3), 90)

    def test_encoder_starts_a_classifier(self, tiny: Path, encoder: Path, tmp_path: Path) -> None:
        request = TrainConfig(str(tiny), "timm:test_vit", weights=str(encoder), size=160, epochs=1, lr=1e-8)
        start_run(request, tmp_path / "run", Listener(), "cpu")
        state = load_file(tmp_path / "run" / LAST)
        assert state["model.head.weight"].shape == (3, 64)
        given = load_file(encoder)["blocks.0.attn.qkv.weight"]
        assert torch.allclose(state["model.blocks.0.attn.qkv.weight"], given, atol=1e-5)

    def test_export_is_rejected(self, encoder: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"encoder without classes.*kdedge train DATA --model timm:test_vit"):
            export_model("timm:test_vit", weights=encoder, output=tmp_path / "m.onnx", profile=load_profile("generic"))

    @pytest.mark.slow
    def test_run_is_validated_and_compared(self, request_for_features: TrainConfig, tmp_path: Path) -> None:
        start_run(request_for_features, tmp_path / "run", Listener(), "cpu")
        assert (tmp_path / "run" / BEST).is_file()
        export_model(str(tmp_path / "run"), profile=load_profile("generic"))
        notes = validate_model(str(tmp_path / "run"), quick=True).report.notes
        assert any("taught only features" in note for note in notes)
        comparison = compare_runs([tmp_path / "run"])
        assert comparison.predictions and not comparison.teachers
        assert any("only its features were used" in note for note in comparison.notes)


def _vit_tiny(path: Path) -> Path:
    torch.manual_seed(0)
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), path)
    return path


def test_command_accepts_an_encoder(tiny: Path, encoder: Path, tmp_path: Path) -> None:
    check_training_options(
        str(tiny), SMALL, tmp_path / "run", weights=None, resume=False, teachers=["timm:test_vit"],
        teacher_weights=[str(encoder)],
    )  # fmt: skip
