"""Weight selection for the initialization of a student from its teacher."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdedge.models.init_from_teacher import InitSummary, init_from_teacher, select_weights
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge_runtime.errors import UsageError


def network(name: str, seed: int = 0, classes: int = 5) -> nn.Module:
    """Build a network with batch statistics that differ from the initial ones."""
    torch.manual_seed(seed)
    model = build_model(ModelSpec(name, classes), 32)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(module.weight)
    return model


def middles(size: int, of: int) -> np.ndarray:
    """Return the middle index of each of `size` equal parts of `of` elements."""
    return np.floor((np.arange(size) + 0.5) * of / size).astype(int)


def picked(tensor: Tensor, *sizes: int) -> np.ndarray:
    """Select evenly spaced elements by numpy indexing."""
    return tensor.detach().numpy()[np.ix_(*(middles(size, of) for size, of in zip(sizes, tensor.shape, strict=True)))]


class TestSelect:
    @pytest.mark.parametrize(
        ("size", "of", "expected"),
        [
            (4, 8, [1, 3, 5, 7]),
            (2, 6, [1, 4]),
            (16, 24, [0, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 23]),
            (5, 5, [0, 1, 2, 3, 4]),
            (3, 7, [1, 3, 5]),
            (3, 5, [0, 2, 4]),
            (1, 3, [1]),
        ],
    )
    def test_elements_are_evenly_spaced_and_kernels_centered(self, size: int, of: int, expected: list[int]) -> None:
        assert select_weights(torch.arange(of), torch.Size([size])).tolist() == expected == middles(size, of).tolist()

    def test_all_dimensions_are_selected(self) -> None:
        tensor = torch.randn(12, 10, 7, 7)
        assert np.array_equal(select_weights(tensor, torch.Size([6, 4, 3, 3])).numpy(), picked(tensor, 6, 4, 3, 3))


@pytest.mark.parametrize(
    "name", ["small:resnet20", "small:resnet8x4", "torchvision:mobilenet_v2", "torchvision:resnet18"]
)
def test_student_of_equal_size_becomes_the_teacher(name: str) -> None:
    student, teacher = network(name, 1), network(name, 2)
    report = init_from_teacher(student, teacher)
    assert report.copied == report.total and report.kept == ()
    for tensor, value in student.state_dict().items():
        assert torch.equal(value, teacher.state_dict()[tensor])
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(student.eval()(images), teacher.eval()(images))


class TestDepth:
    """A shallower student receives the first layers of each stage."""

    @pytest.mark.parametrize(
        ("small", "large"),
        [
            ("small:resnet20", "small:resnet56"),
            ("small:resnet8x4", "small:resnet32x4"),  # with projection shortcuts
            ("torchvision:resnet18", "torchvision:resnet34"),
        ],
    )
    def test_shallower_student_of_equal_width(self, small: str, large: str) -> None:
        student, teacher = network(small, 1), network(large, 2)
        report = init_from_teacher(student, teacher)
        assert report.kept == ()
        for name, value in student.state_dict().items():
            assert torch.equal(value, teacher.state_dict()[name]), name

    def test_shortcuts_are_copied(self) -> None:
        names = init_from_teacher(network("small:resnet8x4"), network("small:resnet32x4")).names
        assert "layer2.0.project.0.weight" in names and "layer2.0.project.1.running_var" in names
        names = init_from_teacher(network("torchvision:resnet18"), network("torchvision:resnet34")).names
        assert "layer2.0.downsample.0.weight" in names


@pytest.fixture(scope="module")
def pair() -> tuple[nn.Module, nn.Module, InitSummary]:
    """Student of half its teacher's width after weight selection."""
    from torchvision.models import mobilenet_v2

    torch.manual_seed(1)
    student, teacher = mobilenet_v2(num_classes=5, width_mult=0.5), network("torchvision:mobilenet_v2", 2)
    return student, teacher, init_from_teacher(student, teacher)


class TestWidth:
    """A narrower student receives every second channel, consistently across layers."""

    def test_each_tensor_is_a_selection(self, pair: tuple[nn.Module, nn.Module, InitSummary]) -> None:
        student, teacher, report = pair
        assert report.kept == ()
        source = teacher.state_dict()
        for name, value in student.state_dict().items():
            assert np.array_equal(value.numpy(), picked(source[name], *value.shape)), name

    def test_depthwise_kernels_follow_their_channel(self, pair: tuple[nn.Module, nn.Module, InitSummary]) -> None:
        student, teacher, _ = pair
        ours, theirs = (model.features[1].conv[0][0] for model in (student, teacher))
        assert ours.groups == ours.weight.shape[0] == 16 and theirs.groups == 32
        for channel in range(16):
            assert torch.equal(ours.weight[channel], theirs.weight[2 * channel + 1])

    def test_classifier_keeps_the_class_order(self, pair: tuple[nn.Module, nn.Module, InitSummary]) -> None:
        student, teacher, _ = pair
        assert torch.equal(student.classifier[1].bias, teacher.classifier[1].bias)

    def test_selected_channels_are_consistent_between_layers(self) -> None:
        """If a wide network uses only every second channel, the narrow one computes the same."""

        def net(width: int) -> nn.Sequential:
            layers = (nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 4, 3), nn.Flatten())
            return nn.Sequential(*layers).eval()

        torch.manual_seed(0)
        wide, narrow = net(12), net(6)
        with torch.no_grad():
            wide[3].weight[:, 0::2] = 0
        init_from_teacher(narrow, wide)
        images = torch.randn(2, 3, 9, 9)
        assert torch.allclose(narrow(images), wide(images), atol=1e-6)


class TestGroups:
    @staticmethod
    def grouped(width: int, groups: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(width, width, 3, groups=groups, bias=False), nn.BatchNorm2d(width))

    def test_equal_groups_correspond(self) -> None:
        student, teacher = self.grouped(8, 2), self.grouped(24, 2)
        assert init_from_teacher(student, teacher).kept == ()
        ours, theirs = student[0].weight.detach().numpy(), teacher[0].weight.detach().numpy()
        for group in (0, 1):
            mine, others = ours[4 * group : 4 * group + 4], theirs[12 * group : 12 * group + 12]
            assert np.array_equal(mine, others[np.ix_(middles(4, 12), middles(4, 12))])

    @pytest.mark.parametrize(("ours", "theirs"), [((8, 2), (16, 4)), ((8, 4), (16, 1)), ((8, 8), (16, 2))])
    def test_kernels_over_other_channels_are_not_copied(self, ours: tuple[int, int], theirs: tuple[int, int]) -> None:
        report = init_from_teacher(self.grouped(*ours), self.grouped(*theirs))
        assert report.kept == ("0.weight",)


class TestWhatDoesNotFit:
    def test_mismatching_tensor_keeps_its_initialization(self) -> None:
        student, teacher = network("small:resnet20", 1, classes=22), network("small:resnet56", 2, classes=10)
        before = {name: value.clone() for name, value in student.state_dict().items()}
        report = init_from_teacher(student, teacher)
        assert report.kept == ("linear.weight", "linear.bias")
        assert (report.copied, report.total) == (95, 97)
        assert all(torch.equal(student.state_dict()[name], before[name]) for name in report.kept)
        assert not torch.equal(student.state_dict()["conv1.weight"], before["conv1.weight"])

    def test_larger_and_missing_layers_are_kept(self) -> None:
        student = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(3, 2))
        teacher = nn.Sequential(nn.Linear(4, 5), nn.Linear(8, 4))
        report = init_from_teacher(student, teacher)
        assert report.names == ("1.weight", "1.bias")
        assert report.kept == ("0.weight", "0.bias", "2.weight", "2.bias")

    def test_no_matching_tensor_is_an_error(self) -> None:
        with pytest.raises(UsageError, match=r"MobileNetV2 can inherit no weights from SmallResNet: .*remove --init"):
            init_from_teacher(network("torchvision:mobilenet_v2"), network("small:resnet20"))

    def test_gradients_and_modes_are_unchanged(self) -> None:
        student, teacher = network("small:resnet8", 1), network("small:resnet20", 2).eval()
        init_from_teacher(student, teacher)
        assert student.training and not teacher.training
        assert all(parameter.requires_grad and parameter.grad is None for parameter in student.parameters())
        student(torch.randn(4, 3, 32, 32)).sum().backward()
        teacher_copy = network("small:resnet20", 2)
        for name, value in teacher.state_dict().items():
            assert torch.equal(value, teacher_copy.state_dict()[name]), "the teacher is not modified"


@pytest.mark.data
def test_selected_layers_of_a_real_teacher_have_similar_features() -> None:
    file = Path(__file__).parents[3].parent / "shared" / "data" / "weights" / "cifar10_resnet56.safetensors"
    if not file.is_file():
        pytest.skip(f"the reference weights {file.name} are not beside the checkout")
    from kdedge.models.trained_model import load_trained

    teacher = load_trained("small:resnet56", weights=file).model.eval()
    student = network("small:resnet20", classes=10).eval()
    init_from_teacher(student, teacher)
    images = torch.randn(2, 3, 32, 32)
    seen: list[Tensor] = []
    for model in (student, teacher):
        model.get_submodule("layer1.2").register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        with torch.no_grad():
            model(images)
    assert torch.equal(*seen)
