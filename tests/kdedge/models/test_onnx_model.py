"""ONNX teachers return the outputs of the original PyTorch model for every layout."""

import copy
import hashlib
import warnings
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.onnx_model import OnnxClassifier
from kdedge_export.modalities.normalization import Normalize
from kdedge_export.onnx_import import PixelInput, add_saliency
from kdedge_export.torch_export import export_graph, save_model, wrap_for_export
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.metadata import Metadata
from kdedge_runtime.modalities.image import ImageInput

SIZE, CLASSES = 32, 5
SPEC = ImageInput(SIZE, SIZE, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
IMAGENET = ImageInput(SIZE, SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LABELS = ("ant", "bee", "cat", "dog", "elk")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Network with statistics and weights that differ from the initial ones."""
    torch.manual_seed(0)
    model = build_model(ModelSpec("small:resnet8", CLASSES), SIZE)
    with torch.no_grad():
        model.train()(torch.randn(16, 3, SIZE, SIZE))
    return model.eval().requires_grad_(False)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (5, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def exported(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File written by `kdedge export`."""
    path, module = tmp_path_factory.mktemp("kdedge") / "model.onnx", wrap_for_export(network, SPEC)
    save_model(export_graph(module).model, Metadata(LABELS, SPEC, module.outputs), path)
    return path


class ChannelsLast(nn.Module):
    """Model with channels-last input `[N, H, W, 3]`, as written by TensorFlow's converters."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.permute(0, 3, 1, 2))


class Explained(nn.Module):
    """Model with additional outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x.flatten(1)[:, :7], self.model(x), x.mean(dim=1)


def plain_export(model: nn.Module, path: Path, shape: tuple[int, ...], open_dims: tuple[int, ...] = (0,)) -> Path:
    """Export a float model with the legacy exporter of `torch.onnx.export`, the most common case."""
    names = ["y"] if not isinstance(model, Explained) else ["embedding", "logits", "saliency_map"]
    axes = {"x": {dim: f"d{dim}" for dim in open_dims}} | ({name: {0: "d0"} for name in names} if open_dims else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (torch.zeros(shape),),
            path,
            dynamo=False,
            input_names=["x"],
            output_names=names,
            dynamic_axes=axes,
        )
    return path


def close(measured: Tensor, expected: Tensor) -> bool:
    return measured.dtype == torch.float32 and torch.allclose(measured, expected, rtol=1e-4, atol=1e-4)


def test_assumed_preprocessing_is_reported(network: nn.Module, exported: Path, tmp_path: Path) -> None:
    foreign = OnnxClassifier.load(plain_export(network, tmp_path / "theirs.onnx", (1, 3, SIZE, SIZE)))
    assert foreign.fed is not None and "mean 0.485,0.456,0.406 and std 0.229,0.224,0.225" in foreign.fed
    assert OnnxClassifier.load(exported).fed is None


def test_explicit_preprocessing_is_used(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    theirs = plain_export(network, tmp_path / "theirs.onnx", (1, 3, SIZE, SIZE))
    add_saliency(theirs, tmp_path / "ours.onnx", pixels=PixelInput(SPEC.mean, SPEC.std))
    teacher = OnnxClassifier.load(tmp_path / "ours.onnx")
    assert teacher.fed is None
    assert close(teacher(images)[0], network(Normalize(SPEC)(images)))


class TestFileByKdedge:
    def test_logits_and_map_of_the_top_class(self, network: nn.Module, exported: Path, images: Tensor) -> None:
        teacher = OnnxClassifier.load(exported)
        assert (teacher.labels, teacher.classes, teacher.input, teacher.has_map) == (LABELS, CLASSES, SPEC, True)
        assert teacher.sha256 == hashlib.sha256(exported.read_bytes()).hexdigest()
        logits, maps = teacher(images)
        expected, expected_maps, _ = wrap_for_export(network, SPEC)(images, torch.tensor([-1]))
        assert maps is not None
        assert close(logits, expected)
        assert close(maps, expected_maps)
        assert close(logits, network(Normalize(SPEC)(images)))

    def test_images_of_another_size_are_resampled_as_in_pytorch(self, network: nn.Module, exported: Path) -> None:
        generator = torch.Generator().manual_seed(2)
        large = torch.randint(0, 256, (4, 52, 48, 3), dtype=torch.uint8, generator=generator)
        logits, _ = OnnxClassifier.load(exported)(large)
        expected = network(Normalize(SPEC)(large))
        assert not torch.equal(logits, expected), "the file takes whole pixel values"
        assert torch.allclose(logits, expected, atol=0.01 * float(expected.abs().max()))

    def test_kdedge_file_rejects_an_explicit_input(self, exported: Path) -> None:
        with pytest.raises(UsageError, match="was exported by kdedge"):
            OnnxClassifier.load(exported, SPEC)

    def test_mismatch_of_labels_and_logits(self, exported: Path, tmp_path: Path) -> None:
        model = onnx.load(exported)
        props = {item.key: item.value for item in model.metadata_props}
        helper.set_model_props(model, props | {"kdedge.labels": '["ant", "bee"]'})
        onnx.save(model, tmp_path / "m.onnx")
        with pytest.raises(ModelFileError, match="5 logits for 2 labels"):
            OnnxClassifier.load(tmp_path / "m.onnx")


class TestForeignFile:
    @pytest.mark.parametrize("dynamic", [True, False], ids=["any batch", "batch of one"])
    @pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
    def test_float_input_is_normalized(
        self, network: nn.Module, images: Tensor, tmp_path: Path, layout: str, dynamic: bool
    ) -> None:
        batch = 2 if dynamic else 1
        model = network if layout == "NCHW" else ChannelsLast(network)
        shape = (batch, 3, SIZE, SIZE) if layout == "NCHW" else (batch, SIZE, SIZE, 3)
        path = plain_export(model, tmp_path / "m.onnx", shape, (0,) if dynamic else ())
        for given, used in ((None, IMAGENET), (SPEC, SPEC)):
            teacher = OnnxClassifier.load(path, given)
            assert (teacher.input, teacher.labels, teacher.classes, teacher.has_map) == (used, None, CLASSES, False)
            logits, maps = teacher(images)
            assert maps is None
            assert close(logits, network(Normalize(used)(images)))

    def test_published_architecture(self, tmp_path: Path, images: Tensor) -> None:
        torch.manual_seed(0)
        model = build_model(ModelSpec("torchvision:squeezenet1_1", CLASSES), 64).eval()
        teacher = OnnxClassifier.load(plain_export(model, tmp_path / "m.onnx", (2, 3, 64, 64)))
        assert (teacher.input.height, teacher.input.width) == (64, 64)
        with torch.no_grad():
            resampled = F.interpolate(
                Normalize(ImageInput(SIZE, SIZE, IMAGENET.mean, IMAGENET.std))(images),
                (64, 64),
                mode="bilinear",
                antialias=True,
            )
            assert close(teacher(images)[0], model(resampled))

    def test_final_softmax_is_inverted(self, network: nn.Module, images: Tensor, tmp_path: Path) -> None:
        path = plain_export(nn.Sequential(network, nn.Softmax(dim=1)), tmp_path / "m.onnx", (2, 3, SIZE, SIZE))
        logits, _ = OnnxClassifier.load(path, SPEC)(images)
        expected = network(Normalize(SPEC)(images))
        assert close(logits, expected)
        for temperature in (1.0, 4.0):
            softened = (logits / temperature).softmax(dim=1)
            assert close(softened, (expected / temperature).softmax(dim=1)), "the temperature has its usual effect"

    def test_softmax_of_several_nodes_is_inverted(self, network: nn.Module, images: Tensor, tmp_path: Path) -> None:
        class Shared(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                powers = network(x).exp()
                return powers / powers.sum(dim=1, keepdim=True)

        logits, _ = OnnxClassifier.load(plain_export(Shared(), tmp_path / "m.onnx", (2, 3, SIZE, SIZE)), SPEC)(images)
        assert close(logits, network(Normalize(SPEC)(images)).log_softmax(dim=1))

    def test_single_sigmoid_gives_two_logits(self, network: nn.Module, images: Tensor, tmp_path: Path) -> None:
        class Binary(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return network(x)[:, :1].sigmoid()

        teacher = OnnxClassifier.load(plain_export(Binary(), tmp_path / "m.onnx", (2, 3, SIZE, SIZE)), SPEC)
        logits, second = teacher(images)[0], network(Normalize(SPEC)(images))[:, 0].sigmoid()
        assert teacher.classes == 2
        assert close(logits.softmax(dim=1), torch.stack([1 - second, second], dim=1))

    def test_float16_input_and_logits_with_further_axes(
        self, network: nn.Module, images: Tensor, tmp_path: Path
    ) -> None:
        model = nn.Sequential(copy.deepcopy(network), nn.Unflatten(1, (CLASSES, 1, 1))).half()
        path = tmp_path / "m.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (torch.zeros(2, 3, SIZE, SIZE, dtype=torch.float16),), path, dynamo=False)
        logits, _ = OnnxClassifier.load(path, SPEC)(images)
        expected = network(Normalize(SPEC)(images))
        assert logits.dtype == torch.float32
        assert torch.allclose(logits, expected, atol=0.02 * float(expected.abs().max()))

    def test_saturated_softmax_gives_finite_logits(self, tmp_path: Path, images: Tensor) -> None:
        class Certain(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return (x.mean(dim=(1, 2, 3))[:, None] * 0 + torch.tensor([200.0, 0.0, -200.0])).softmax(dim=1)

        logits, _ = OnnxClassifier.load(plain_export(Certain(), tmp_path / "m.onnx", (2, 3, SIZE, SIZE)))(images)
        assert logits.isfinite().all()
        assert torch.equal(logits.argmax(dim=1), torch.zeros(len(images), dtype=torch.int64))

    @pytest.mark.parametrize("fixed", [1, 4])
    def test_raw_pixels_in_batches_of_a_fixed_size(
        self, network: nn.Module, exported: Path, images: Tensor, tmp_path: Path, fixed: int
    ) -> None:
        model = onnx.load(exported)
        del model.metadata_props[:]
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = fixed
        onnx.save(model, tmp_path / "m.onnx")
        teacher = OnnxClassifier.load(tmp_path / "m.onnx")
        assert close(teacher(images)[0], network(Normalize(SPEC)(images))), "the file contains the normalization"

    def test_dynamic_size_is_the_callers(self, network: nn.Module, images: Tensor, tmp_path: Path) -> None:
        path = plain_export(network, tmp_path / "m.onnx", (2, 3, SIZE, SIZE), (0, 2, 3))
        assert OnnxClassifier.load(path).input.height == 224
        teacher = OnnxClassifier.load(path, SPEC)
        assert teacher.input == SPEC
        assert close(teacher(images)[0], network(Normalize(SPEC)(images)))

    @pytest.mark.filterwarnings("ignore::FutureWarning")
    def test_external_weights(self, network: nn.Module, images: Tensor, tmp_path: Path) -> None:
        path, beside = tmp_path / "m.onnx", tmp_path / "m.onnx.data"
        dynamic = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(  # the current exporter, which does this by default
            network, (torch.zeros(2, 3, SIZE, SIZE),), path, dynamo=True, dynamic_shapes=dynamic, verbose=False
        )
        first = OnnxClassifier.load(path, SPEC)
        assert close(first(images)[0], network(Normalize(SPEC)(images)))
        content = bytearray(beside.read_bytes())
        content[-1] ^= 1
        beside.write_bytes(content)
        assert OnnxClassifier.load(path, SPEC).sha256 != first.sha256, "the hash includes the weights"
        beside.unlink()
        with pytest.raises(ModelFileError, match=r"m\.onnx\.data, which is not in the same folder"):
            OnnxClassifier.load(path)

    def test_map_of_the_file_is_used(self, network: nn.Module, images: Tensor, tmp_path: Path) -> None:
        path = plain_export(Explained(network), tmp_path / "m.onnx", (2, 3, SIZE, SIZE))
        teacher = OnnxClassifier.load(path, SPEC)
        logits, maps = teacher(images)
        x = Normalize(SPEC)(images)
        assert teacher.classes == CLASSES
        assert maps is not None
        assert close(logits, network(x))
        assert close(maps, x.mean(dim=1))
