"""Add maps to files of PyTorch's exporters without their source, and compare with automatic differentiation.

    python tests/benchmarks/torch_files.py ROWS.jsonl FILES [NETWORK...]

exports classifiers of torchvision, timm and Hugging Face's transformers with random weights in the usual way, keeps the
files in the folder FILES, and adds a row for each file to ROWS.jsonl; existing rows are kept. Each network has a
process and two minutes. The exporter `optimum` needs optimum-onnx, and with it an older version of transformers.
"""

import json
import logging
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import permutations
from pathlib import Path
from typing import Any

import hugging_face
import numpy as np
import onnx
import onnxruntime as ort
import torch
from model_sweep import TIMM, TOLERANCE, make_lively, normalized
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kdedge.models.model_registry import build_model, pretrained_input
from kdedge.models.model_spec import ModelSpec
from kdedge_export.onnx_import import add_saliency
from kdedge_runtime.errors import KdedgeError

CLASSES, SECONDS = 10, 120
TORCHVISION = (
    *("alexnet", "vgg11_bn", "squeezenet1_1", "resnet18", "resnext50_32x4d", "regnet_x_400mf", "densenet121"),
    *("mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x0_5", "efficientnet_b0", "googlenet"),
    *("inception_v3", "convnext_tiny", "vit_b_32", "swin_t", "swin_v2_t", "maxvit_t"),
)
MORE_TIMM = (
    *("twins_svt_small", "twins_pcpvt_small", "beit_base_patch16_224", "cait_xxs24_224", "xcit_nano_12_p16_224"),
    *("pit_ti_224", "levit_128s", "mixer_s32_224", "resmlp_12_224", "poolformer_s12", "pvt_v2_b0", "edgenext_xx_small"),
    *("coat_lite_tiny", "crossvit_tiny_240", "vit_base_patch16_siglip_224", "eva02_tiny_patch14_224", "nest_tiny"),
    *("tiny_vit_5m_224", "repvit_m1", "hiera_tiny_224", "mambaout_femto", "focalnet_tiny_srf", "gcvit_xxtiny"),
)
NETWORKS = (
    *(f"hf:{name}" for name in hugging_face.CLASSIFIERS),
    *(f"torchvision:{name}" for name in TORCHVISION),
    *(f"timm:{name}" for name in (*TIMM, *MORE_TIMM)),
)
EXPORTERS = ("dynamo", "dynamo, one image", "TorchScript")
"""Exporters of torch.onnx.export: default with dynamic and fixed batch, and `dynamo=False` with a dynamic one."""
SIDES = (128, 160, 192, 224)
"""Input sizes in px; the smallest one that a network accepts is used."""
_TWIN = 2e-3
"""Maximum relative difference between a PyTorch tensor and the file's features to be considered equal."""


@dataclass(frozen=True)
class Row:
    """Result of one file."""

    network: str
    exporter: str
    outcome: str
    """Outcome: `gradcam`, `reciprocam`, `refused` or `not exported`."""
    why: str = ""
    """Non-differentiable operator, reason for rejection, or the exporter's error."""
    positions: tuple[int, int] = (0, 0)
    features: str = ""
    error: float | None = None
    """Maximum Grad-CAM error against autograd over two inputs, relative to the largest value of each map.

    None if no tensor of the source equals the file's features.
    """
    rounding: float | None = None
    """Float32 error of PyTorch's map against float64, likewise."""

    @property
    def is_right(self) -> bool:
        """True if the error is within the tolerance, or explained by float32."""
        return self.error is not None and self.error <= max(TOLERANCE, min(4 * (self.rounding or 0), 1e-2))


def network(name: str) -> tuple[nn.Module, int]:
    """Build a network with randomized weights, and return it with its image size in px."""
    library, _, bare = name.partition(":")
    if library == "hf":
        torch.manual_seed(0)
        model = hugging_face.classifier(bare, CLASSES)
        side = hugging_face.side_of(bare)
        make_lively(model, side)
        return model.eval(), side
    native = pretrained_input(name).height
    for side in (*(side for side in SIDES if side < native), native):
        torch.manual_seed(0)
        model = build_model(ModelSpec(name, CLASSES), side)
        try:
            make_lively(model, side)
            logits_of(model.eval(), normalized(2, 0, side))
        except (RuntimeError, AssertionError, ValueError):
            if side == native:
                raise
        else:
            return model, side
    raise AssertionError("unreachable")


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return the logits, also from the output objects of Hugging Face's models."""
    given = model(x)
    return given if isinstance(given, Tensor) else given.logits


def export(model: nn.Module, side: int, exporter: str, path: Path) -> None:
    """Export in the usual way."""
    count = 1 if exporter == "dynamo, one image" else 2
    example = (normalized(count, 0, side),)
    if exporter == "optimum":
        from optimum.exporters.onnx import onnx_export_from_model  # type: ignore[import-not-found]

        onnx_export_from_model(model, path.parent / path.stem, task="image-classification", do_validation=False)
        (path.parent / path.stem / "model.onnx").rename(path)
    elif exporter == "TorchScript":
        axes = {"input": {0: "batch"}, "output": {0: "batch"}}
        names = {"input_names": ["input"], "output_names": ["output"]}
        torch.onnx.export(model, example, path, dynamo=False, dynamic_axes=axes, **names)  # type: ignore[arg-type]
    else:
        shapes = None if count == 1 else ({0: torch.export.Dim("batch")},)
        torch.onnx.export(model, example, path, dynamo=True, external_data=False, verbose=False, dynamic_shapes=shapes)


class _Finds(TorchFunctionMode):
    """Mode that finds the first tensor of a forward pass with given values, in any order of axes."""

    def __init__(self, wanted: np.ndarray) -> None:
        super().__init__()
        self.wanted, self.size = wanted, float(np.linalg.norm(wanted))
        self.found: tuple[Tensor, tuple[int, ...]] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in result if isinstance(result, tuple | list) else [result]:
            fits = isinstance(item, Tensor) and item.requires_grad and item.numel() == self.wanted.size
            if fits and self.found is None and (order := self._order(item.detach().numpy())) is not None:
                self.found = item, order
        return result

    def _order(self, value: np.ndarray) -> tuple[int, ...] | None:
        if abs(float(np.linalg.norm(value)) - self.size) > 1e-2 * self.size:
            return None
        largest = float(np.abs(self.wanted).max())
        for order in permutations(range(value.ndim)):
            turned = value.transpose(order)
            fits = turned.shape == self.wanted.shape or (order[0] == 0 and turned.ndim != self.wanted.ndim)
            if fits and np.abs(turned.reshape(self.wanted.shape) - self.wanted).max() <= _TWIN * largest:
                return order
        return None


def autograd_map(
    model: nn.Module, x: Tensor, features: np.ndarray, classes: np.ndarray, positions: tuple[int, int]
) -> np.ndarray | None:
    """Compute Grad-CAM at the tensor that equals these features; None if there is none."""
    finder = _Finds(features)
    with finder:
        logits = logits_of(model, x.clone().requires_grad_())
    if finder.found is None:
        return None
    tensor, order = finder.found
    chosen = logits.gather(1, torch.from_numpy(classes)[:, None]).sum()
    (slope,) = torch.autograd.grad(chosen, tensor)
    values, slopes = (item.detach().permute(order).reshape(features.shape) for item in (tensor, slope))
    if values.ndim == 3:
        values, slopes = (item[:, -positions[0] * positions[1] :].transpose(1, 2) for item in (values, slopes))
        values, slopes = (item.reshape(*item.shape[:2], *positions) for item in (values, slopes))
    elif tuple(values.shape[2:]) != positions:
        values, slopes = (item.permute(0, 3, 1, 2) for item in (values, slopes))
    return (slopes.mean((2, 3), keepdim=True) * values).sum(1).numpy()


def measure(name: str, exporter: str, folder: Path) -> Row:
    """Export, add a map, and compare."""
    model, side = network(name)
    path = folder / f"{name} {exporter}.onnx".replace(":", " ")
    if not path.exists():
        try:
            export(model, side, exporter, path)
        except Exception as error:  # any error of the exporter
            path.unlink(missing_ok=True)
            return Row(name, exporter, "not exported", _cause(error))
    try:
        done = add_saliency(path, path.with_suffix(".explained.onnx"), side_px=side if exporter == "optimum" else None)
    except KdedgeError as error:
        return Row(name, exporter, "refused", str(error).replace(str(path), "MODEL.onnx"))
    positions = done.outputs.map_height or 0, done.outputs.map_width or 0
    row = Row(
        name, exporter, done.outputs.method, done.no_derivative_of or "", positions, done.outputs.target_layer or ""
    )
    if done.outputs.method != "gradcam":
        return row
    errors = [_errors(model, done.path, row, normalized(1, seed, side)) for seed in (1, 2)]
    done.path.unlink()
    if any(pair is None for pair in errors):
        return row
    largest, rounding = np.max([pair for pair in errors if pair is not None], axis=0)
    return Row(**asdict(row) | {"error": float(largest), "rounding": float(rounding)})


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _errors(model: nn.Module, path: Path, row: Row, x: Tensor) -> tuple[float, float] | None:
    graph = onnx.load(path)
    graph.graph.output.append(onnx.ValueInfoProto(name=row.features))
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = ["saliency_map", "explained_class", row.features]
    measured, classes, features = session.run(wanted, {session.get_inputs()[0].name: x.numpy()})
    positions = measured.shape[1:]
    single = autograd_map(model, x, features, classes, positions)
    double = autograd_map(model.double(), x.double(), features, classes, positions)
    model.float()
    if single is None or double is None:
        return None
    return _relative(measured, single), _relative(single, double)


def _relative(measured: np.ndarray, expected: np.ndarray) -> float:
    return float((np.abs(measured - expected).max((1, 2)) / np.abs(expected).max((1, 2))).max())


def read_rows(path: Path) -> list[Row]:
    """Read the measured rows."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return [Row(**json.loads(line)) for line in lines]


def summary(rows: Iterable[Row]) -> str:
    """Summarize by library and exporter in Markdown: methods and rejections."""
    lines = ["| made by | networks tried | explained how | refused and why | largest error |", "|---|---|---|---|---|"]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.network.partition(":")[0], row.exporter), []).append(row)
    for (library, exporter), found in groups.items():
        count = Counter(row.outcome for row in found)
        how = ", ".join(f"{count[kind]} {kind}" for kind in ("gradcam", "reciprocam") if count[kind])
        refused = "; ".join(f"{row.network}: {row.why}" for row in found if row.outcome == "refused")
        untold = [row.network for row in found if row.outcome == "gradcam" and not row.is_right]
        errors = [row.error for row in found if row.error is not None]
        lines.append(
            f"| {library}, {exporter} | {len(found) - count['not exported']} | {how} | {refused or 'none'} "
            f"| {max(errors, default=0):.0e}{' but for ' if untold else ''}{', '.join(untold)} |"
        )
    return "\n".join(lines)


def _every(path: Path, folder: Path, names: Iterable[str], exporters: Iterable[str]) -> None:
    for name in names:
        known = {row.exporter for row in read_rows(path) if row.network == name}
        missing = [exporter for exporter in exporters if exporter not in known]
        if not missing:
            continue
        command = [sys.executable, __file__, "--one", str(path), str(folder), name, *missing]
        try:
            why = subprocess.run(command, timeout=SECONDS * len(missing), capture_output=True, text=True).stderr
        except subprocess.TimeoutExpired:
            why = f"not finished in {SECONDS} s"
        found = {row.exporter: row for row in read_rows(path) if row.network == name}
        for exporter in missing:
            if exporter not in found:
                found[exporter] = Row(name, exporter, "not exported", (why.strip().splitlines() or [""])[-1])
                _add(path, found[exporter])
            row = found[exporter]
            print(name, exporter, row.outcome, row.positions, row.features, row.error, row.why[:300], flush=True)


def _add(path: Path, row: Row) -> None:
    with path.open("a") as file:
        file.write(json.dumps(asdict(row) | {"cells": list(row.positions)}) + "\n")


def main(arguments: list[str]) -> None:
    """Run the command line."""
    if arguments[0] == "--one":
        path, folder, name, *exporters = arguments[1:]
        logging.disable(logging.ERROR)
        warnings.simplefilter("ignore")
        for exporter in exporters:
            _add(Path(path), measure(name, exporter, Path(folder)))
        return
    path, folder, *names = arguments
    Path(folder).mkdir(parents=True, exist_ok=True)
    _every(Path(path), Path(folder), names or NETWORKS, ("optimum",) if find_spec("optimum") else EXPORTERS)
    print(summary(read_rows(Path(path))))


if __name__ == "__main__":
    main(sys.argv[1:])
