"""Export a published architecture with random weights, compare it with automatic differentiation, and time its map.

    python tests/benchmarks/model_sweep.py MODEL ROWS.jsonl

measures one network and adds its row to the file. A separate process per network releases its memory.
"""

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.models.model_registry import build_model, pretrained_input
from kdedge.models.model_spec import ModelSpec
from kdedge_export.errors import GraphNotSupported, HeadNotSupported
from kdedge_export.saliency import AutogradHead, CAMExplainer, ClosedFormHead
from kdedge_export.torch_export import ExportableModel, export_graph, save_model, wrap_for_export
from kdedge_runtime import Metadata, Model
from kdedge_runtime.metadata import Outputs
from kdedge_runtime.modalities.image import ImageInput, require_image

__all__ = ["LARGEST", "TIMM", "TOLERANCE", "Row", "measure", "read_rows", "table", "torchvision_names"]

TOLERANCE = 1e-4
LARGEST = 150e6
"""Maximum number of parameters of torchvision networks."""
CLASSES = 100
SIDES = (128, 160, 192, 224)
"""Input sizes in px; the smallest one that the network accepts and that gives a useful map is used."""
TIMM = (
    *("resnet10t", "resnext26ts", "regnetx_002", "densenet121", "vgg11", "inception_v3", "inception_next_atto"),
    *("mnasnet_small", "mobilenetv1_100", "mobilenetv2_035", "mobilenetv3_small_050", "mobilenetv4_conv_small_035"),
    *("mobilenetv4_hybrid_medium", "efficientnet_b0", "tf_efficientnet_lite0", "tf_efficientnetv2_b0"),
    *(
        "efficientnetv2_rw_t",
        "convnext_atto",
        "convnextv2_atto",
        "vit_tiny_patch16_224",
        "vit_wee_patch16_reg1_gap_256",
    ),
    *("deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224"),
    *("swin_tiny_patch4_window7_224", "swinv2_cr_tiny_ns_224", "maxvit_pico_rw_256", "mobilevit_xxs"),
    *("mobilevitv2_050", "fastvit_t8", "efficientformer_l1", "efficientformerv2_s0", "ghostnet_050"),
)
"""Smallest member of each mainstream family of timm."""

Answer = tuple[np.ndarray, np.ndarray]
"""Logits and maps."""


@dataclass(frozen=True)
class Row:
    """Measurements of one network."""

    model: str
    parameters: int
    side_px: int
    head: str
    how: str
    """Type of head: `closed form` or `differentiated`."""
    target_layer: str
    positions: tuple[int, int]
    logits_error: float
    """Maximum error against PyTorch over two inputs, relative to the largest value of each image."""
    map_error: float
    """Maximum error against Grad-CAM by autograd over two inputs, relative to the largest value of each image."""
    rounding: float
    """PyTorch's own float32 error: the larger error of its logits and map against float64."""
    cost: float
    """CPU time with the map, relative to that without it, one image, one thread."""
    export_s: float


def torchvision_names() -> list[str]:
    """Return all classifiers of torchvision up to `LARGEST` parameters."""
    from torchvision import models
    from torchvision.models import get_model_weights, list_models

    names = list_models(module=models)
    return [name for name in names if list(get_model_weights(name))[-1].meta["num_params"] <= LARGEST]


def measure(name: str) -> Row:
    """Export `torchvision:NAME` or `timm:NAME` and measure it.

    Raises:
        AssertionError: The map is the same for every image.
    """
    deployed = _smallest(name)
    spec = require_image(deployed.spec, name)
    explained = deployed.explained
    assert isinstance(explained, CAMExplainer)
    started = time.perf_counter()
    graph = export_graph(deployed).model
    export_s = time.perf_counter() - started
    labels = tuple(str(index) for index in range(CLASSES))
    with tempfile.TemporaryDirectory() as folder:
        with_map = saved(graph, Metadata(labels, spec, deployed.outputs), Path(folder) / "with.onnx")
        without = saved(without_map(graph), Metadata(labels, spec, Outputs("none")), Path(folder) / "without.onnx")
        inputs = (pictures(spec, 1, 1), pictures(spec, 2, 2))
        predictions = [prediction_of(with_map, images) for images in inputs]
        cost = cost_of(with_map, without, pictures(spec, 1, 3))
    (_, first), (_, second) = predictions
    assert np.abs(first - second).max() > 1e-2 * np.abs(first).max(), "the map does not depend on the image"
    classes = [logits.argmax(axis=1) for logits, _maps in predictions]
    single, double = (
        [_by_autograd(deployed, images, index, dtype) for images, index in zip(inputs, classes, strict=True)]
        for dtype in (torch.float32, torch.float64)
    )
    logits_error, map_error = _errors(predictions, single)
    return Row(
        model=name,
        parameters=sum(parameter.numel() for parameter in explained.model.parameters()),
        side_px=spec.height,
        head=explained.head_description,
        how="differentiated" if isinstance(explained.head, AutogradHead) else "closed form",
        target_layer=explained.head.target_layer,
        positions=deployed.map_size,
        logits_error=logits_error,
        map_error=map_error,
        rounding=max(_errors(single, double)),
        cost=cost,
        export_s=export_s,
    )


def _smallest(name: str) -> ExportableModel:
    native = pretrained_input(name).height
    for side in (*(side for side in SIDES if side < native), native):
        torch.manual_seed(0)
        model = build_model(ModelSpec(name, CLASSES), side)
        try:
            make_lively(model, side)
            return wrap_for_export(model, ImageInput(side, side, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)), "gradcam")
        except (RuntimeError, AssertionError, ValueError, HeadNotSupported, GraphNotSupported):
            if side == native:
                raise
    raise AssertionError("unreachable")


def make_lively(model: nn.Module, side: int) -> None:
    """Randomize weights as after training: initial zeros block gradients, and initial ones hide errors."""
    generator = torch.Generator().manual_seed(0)

    def uniform(value: Tensor, low: float, high: float) -> None:
        value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for path, parameter in model.named_parameters():
            scale = float(parameter.abs().max())
            if parameter.ndim <= 1 and scale > 0 and float(parameter.abs().min()) == scale:  # a gain
                uniform(parameter, 0.6, 1.4)
            elif scale == 0:
                uniform(parameter, -0.2, 0.2) if parameter.ndim <= 1 else parameter.normal_(
                    std=0.05, generator=generator
                )
            elif scale < 1e-3 or "layer_scale" in path:
                uniform(parameter, 0.2, 0.4)
        norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        if norms:  # statistics of images, so that the last layers have a signal
            for module in norms:
                module.momentum = None
            model.train()
            model(normalized(4, 0, side))
            for module in norms:
                module.momentum = 0.1
        model.eval()


def normalized(n: int, seed: int, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(torch.randn(n, 3, 6, 6, generator=generator), side, mode="bilinear")
    return coarse + 0.4 * torch.randn(n, 3, side, side, generator=generator)


def pictures(spec: ImageInput, n: int, seed: int) -> np.ndarray:
    x = (normalized(n, seed, spec.height) * 0.2 + 0.5).clamp(0, 1) * 255
    return x.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def prediction_of(model: Model, images: np.ndarray) -> Answer:
    prediction = model.predict(images)
    assert prediction.saliency_map is not None
    return prediction.logits, prediction.saliency_map


def _by_autograd(deployed: ExportableModel, images: np.ndarray, classes: np.ndarray, dtype: torch.dtype) -> Answer:
    """Compute logits and Grad-CAM of the model by autograd, using only the target layer from kdedge."""
    spec, explained = require_image(deployed.spec, "the model"), deployed.explained
    assert isinstance(explained, CAMExplainer)
    scaled = (images / 255.0 - spec.mean) / spec.std
    x = torch.from_numpy(scaled.transpose(0, 3, 1, 2)).to(dtype)
    explained.model.to(dtype)
    with torch.no_grad():
        logits = explained.model(x).numpy()
    head, seen = explained.head, []
    layer = explained.model.get_submodule(head.target_layer)
    if isinstance(head, ClosedFormHead) and head.takes_input:
        handle = layer.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    else:
        handle = layer.register_forward_hook(lambda _module, _args, output: seen.append(output))
    chosen = explained.model(x.requires_grad_()).gather(1, torch.from_numpy(classes)[:, None]).sum()
    handle.remove()
    (slopes,), activations = torch.autograd.grad(chosen, seen), seen[0]
    if isinstance(head, AutogradHead):
        slopes, activations = head.layout.channels_first(slopes), head.layout.channels_first(activations)
    maps = (slopes.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1)
    explained.model.float()
    return logits, maps.detach().numpy()


def _errors(measured: list[Answer], expected: list[Answer]) -> tuple[float, float]:
    """Return the maximum errors of logits and maps over the inputs."""
    pairs = [
        [_error(*values) for values in zip(*predictions, strict=True)]
        for predictions in zip(measured, expected, strict=True)
    ]
    logits, maps = np.max(pairs, axis=0)
    return float(logits), float(maps)


def _error(measured: np.ndarray, expected: np.ndarray) -> float:
    axes = tuple(range(1, expected.ndim))
    return float((np.abs(measured - expected).max(axes) / np.abs(expected).max(axes)).max())


def without_map(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Reduce the graph to its logits and the nodes they need."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    needed, kept = {"logits"}, []
    for node in reversed(graph.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del model.graph.node[:], model.graph.output[1:], model.graph.input[1:]
    model.graph.node.extend(reversed(kept))
    weights = [weight for weight in model.graph.initializer if weight.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    return model


def saved(model: onnx.ModelProto, metadata: Metadata, path: Path) -> Model:
    save_model(model, metadata, path)
    return Model.load(path, threads=1)


def cost_of(first: Model, second: Model, images: np.ndarray, seconds: float = 4) -> float:
    """Compute the median ratio of CPU times over paired runs, which cancels slowdowns of the machine."""
    ratios: list[float] = []
    started = time.perf_counter()
    while len(ratios) < 12 or time.perf_counter() - started < seconds:
        pair = (first, second) if len(ratios) % 2 else (second, first)  # the second run finds warm caches
        times = {}
        for model in pair:
            before = time.process_time()
            model.predict(images)
            times[model.path] = time.process_time() - before
        ratios.append(times[first.path] / times[second.path])
    return float(np.median(ratios[2:]))


def read_rows(path: Path) -> dict[str, Row]:
    """Read the measured rows, by model."""
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["model"]: Row(**row | {"cells": tuple(row["cells"])}) for row in rows}


def append_row(path: Path, row: Row) -> None:
    """Append a row to the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def table(rows: dict[str, Row], names: list[str]) -> str:
    """Format the rows as Markdown, in the order of the names."""
    lines = [
        "| model | M parameters | px | map | target layer | head | how | logits error | map error | cost |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        if name in rows:
            row = rows[name]
            lines.append(
                f"| {row.model} | {row.parameters / 1e6:.1f} | {row.side_px} | {row.positions[0]} × {row.positions[1]} "
                f"| `{row.target_layer}` | {row.head} | {row.how} "
                f"| {_shown(row.logits_error, row)} | {_shown(row.map_error, row)} "
                f"| {row.cost:.2f} |"
            )
    return "\n".join(lines) + "\n"


def _shown(error: float, row: Row) -> str:
    """Format an error, followed by PyTorch's own error if it exceeds the tolerance."""
    return f"{error:.0e} ({row.rounding:.0e})" if error > TOLERANCE else f"{error:.0e}"


if __name__ == "__main__":
    append_row(Path(sys.argv[2]), measure(sys.argv[1]))
