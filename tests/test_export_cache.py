"""Networks whose graphs are shared between tests."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from export_cache import Deployed, GraphFolder, exported_once
from torch import nn

from kdedge_export.torch_export import ClassifierOnly, ExportedGraph, wrap_for_export
from kdedge_runtime.modalities.image import ImageInput

SPEC = ImageInput(32, 32, (0.5,) * 3, (0.25,) * 3)


class Counting(nn.Conv2d):
    """Layer that is defined in a test."""


def network(convolution: type[nn.Conv2d] = nn.Conv2d, *, seed: int = 0, slope: float = 0.1) -> nn.Module:
    torch.manual_seed(seed)
    body = nn.Sequential(convolution(3, 4, 3, 2, 1), nn.LeakyReLU(slope))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


def hooked(model: nn.Module) -> nn.Module:
    next(model.children()).register_forward_hook(lambda layer, inputs, output: 2 * output)
    return model


def patched(model: nn.Module) -> nn.Module:
    flatten = model[2]  # type: ignore[index]
    flatten.forward = lambda x: 2 * x.flatten(1)
    return model


def configured(model: nn.Module, **preprocessing: object) -> nn.Module:
    model.preprocess_cfg = preprocessing  # type: ignore[assignment]  # as in OpenCLIP
    return model


@pytest.fixture
def exported() -> list[Deployed]:
    """Modules that were exported, in order."""
    return []


@pytest.fixture
def export(exported: list[Deployed], tmp_path: Path) -> Callable[[Deployed], ExportedGraph]:
    def export_graph(module: Deployed) -> ExportedGraph:
        exported.append(module)
        return ExportedGraph(onnx.ModelProto(producer_version=str(len(exported))), frozenset({"map"}))

    return exported_once(export_graph, GraphFolder(tmp_path / "graphs"))


def test_equal_network_is_exported_once(export: Callable[[Deployed], ExportedGraph], exported: list[Deployed]) -> None:
    first = export(wrap_for_export(network(), SPEC))
    first.model.producer_name = "edited"
    again = export(wrap_for_export(network(), SPEC))
    assert len(exported) == 1 and again.model.producer_name == ""
    assert again.model.producer_version == "1" and again.head_nodes == {"map"}


def test_processes_share_graphs(
    export: Callable[[Deployed], ExportedGraph], exported: list[Deployed], tmp_path: Path
) -> None:
    def fail(module: Deployed) -> ExportedGraph:
        raise AssertionError("exported again")

    export(wrap_for_export(network(), SPEC))
    exported_once(fail, GraphFolder(tmp_path / "graphs"))(wrap_for_export(network(), SPEC))
    with pytest.raises(AssertionError, match="exported again"):
        exported_once(fail, GraphFolder(tmp_path / "other"))(wrap_for_export(network(), SPEC))


@pytest.mark.parametrize(
    "other",
    [
        lambda: wrap_for_export(network(seed=1), SPEC),
        lambda: wrap_for_export(network(slope=0.2), SPEC),
        lambda: wrap_for_export(network(), ImageInput(32, 32, (0.4,) * 3, (0.25,) * 3)),
        lambda: wrap_for_export(network(), SPEC, "layercam"),
        lambda: ClassifierOnly(network(), SPEC),
        lambda: wrap_for_export(network(Counting), SPEC),
        lambda: wrap_for_export(hooked(network()), SPEC),
        lambda: wrap_for_export(patched(network()), SPEC),
    ],
    ids=["weights", "setting", "input", "method", "no map", "layer of a test", "hook", "replaced forward"],
)
def test_other_network_is_exported(
    export: Callable[[Deployed], ExportedGraph], exported: list[Deployed], other: Callable[[], Deployed]
) -> None:
    export(wrap_for_export(network(), SPEC))
    export(other())
    assert len(exported) == 2


def test_networks_may_have_settings_by_name(
    export: Callable[[Deployed], ExportedGraph], exported: list[Deployed]
) -> None:
    for size, count in ((32, 1), (32, 1), (64, 2)):
        export(wrap_for_export(configured(network(), size=(size, size)), SPEC))
        assert len(exported) == count
    for _ in range(2):
        export(wrap_for_export(configured(network(), size=torch.tensor(32)), SPEC))
    assert len(exported) == 4, "the text of a tensor does not determine it"


def test_layer_of_a_test_is_always_exported(
    export: Callable[[Deployed], ExportedGraph], exported: list[Deployed]
) -> None:
    for _ in range(2):
        export(wrap_for_export(network(Counting), SPEC))
    assert len(exported) == 2
