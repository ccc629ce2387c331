"""Tiny classifier as a torch module and as a hand-built ONNX graph, with options to break the graph."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from kdedge_export.metrics.comparison import Comparison, compare
from kdedge_export.metrics.torch_predictions import Predictions
from kdedge_export.quantization import RECIPES
from kdedge_export.tasks.classification import CLASSIFICATION
from kdedge_export.validation import Gates
from kdedge_runtime import Model
from kdedge_runtime.metadata import Metadata, Outputs
from kdedge_runtime.modalities.image import ImageInput

SIDE, CHANNELS, CLASSES = 32, 6, 4
LABELS = ("stop", "yield", "priority", "no entry")
METADATA = Metadata(
    labels=LABELS,
    input=ImageInput(SIDE, SIDE, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3)),
    outputs=Outputs("gradcam", "conv", "linear", SIDE // 4, SIDE // 4),
    temperature=2.0,
)


class Toy(nn.Module):
    """Convolution, ReLU, mean, linear; the map is the sum of activations weighted by the class's row / positions."""

    def __init__(self, seed: int = 0, stride: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.conv = nn.Conv2d(3, CHANNELS, kernel_size=4, stride=stride)
        self.head = nn.Linear(CHANNELS, CLASSES)
        # Scales for which every class is predicted for some random images.
        nn.init.normal_(self.conv.weight, std=0.3, generator=generator)
        nn.init.normal_(self.head.weight, std=3.0, generator=generator)
        nn.init.zeros_(self.conv.bias)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", torch.tensor(METADATA.input.mean) * 255)
        self.register_buffer("std", torch.tensor(METADATA.input.std) * 255)

    def forward(self, image: Tensor, class_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.conv(((image.float() - self.mean) / self.std).permute(0, 3, 1, 2)).relu()
        logits = self.head(features.mean(dim=(2, 3)))
        explained = torch.where(class_index < 0, logits.argmax(dim=1), class_index)
        positions = features.shape[2] * features.shape[3]
        saliency_map = torch.einsum("nchw,nc->nhw", features, self.head.weight[explained]) / positions
        return logits, saliency_map, explained


def pictures(n: int, seed: int = 0) -> np.ndarray:
    """Draw random images with structure at several scales, uint8 `[n, SIDE, SIDE, 3]`."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 60, (n, 4, 4, 3)).repeat(SIDE // 4, 1).repeat(SIDE // 4, 2)
    shade = rng.normal(120, 60, (n, 1, 1, 3))
    return np.clip(shade + coarse + rng.normal(0, 20, (n, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def model_file(
    toy: Toy,
    path: Path,
    *,
    metadata: Metadata = METADATA,
    swap_channels: bool = False,
    constant_map: bool = False,
    negative_map: bool = False,
    class_shift: int = 0,
    shuffle_classes: bool = False,
    without_map: bool = False,
    noise: float = 0.0,
    logits_scale: float = 1.0,
    default_is_least: bool = False,
    shift_others: bool = False,
    map_scale: float = 1.0,
) -> Model:
    """Write the toy as an ONNX file, intact or broken as exporters may break models.

    Args:
        toy: model with the weights.
        path: output file.
        metadata: metadata of the file.
        swap_channels: read the images as BGR.
        constant_map: return a constant map.
        negative_map: return the negated map.
        class_shift: explain the class at this offset, but report the requested one.
        shuffle_classes: return the logits in reverse order.
        without_map: export as with `--method none`.
        noise: relative error of the weights, as after quantization.
        logits_scale: factor on the logits, but not on the maps.
        default_is_least: explain the class with the lowest logit by default.
        shift_others: return another class's map for every class but the top-1 class.
        map_scale: factor on the map.
    """
    rng = np.random.default_rng(1)
    kernel, head = (weight.detach().numpy() for weight in (toy.conv.weight, toy.head.weight))
    kernel, head = (weight * (1 + noise * rng.standard_normal(weight.shape)) for weight in (kernel, head))
    if swap_channels:
        kernel = kernel[:, ::-1] * 1
    if shuffle_classes:
        head = head[::-1] * 1
    positions = (SIDE // toy.conv.stride[0]) ** 2 / map_scale
    values = {
        "mean": np.array(METADATA.input.mean) * 255,
        "std": np.array(METADATA.input.std) * 255,
        "kernel": kernel,
        "head": head,
        # Division by infinity makes the whole map 0.
        "logits_scale": np.array(logits_scale),
        "cells": np.array(np.inf if constant_map else -positions if negative_map else positions),
    }
    integers = {
        "class_index": np.array([-1]),
        "zero": np.array([0]),
        "shift": np.array([class_shift]),
        "others_shift": np.array([class_shift + int(shift_others)]),
        "classes": np.array([CLASSES]),
        "spatial": np.array([2, 3]),
        "last": np.array([-1]),
        "across": np.array([1]),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        node("Sub", ["floats", "mean"], ["centred"]),
        node("Div", ["centred", "std"], ["scaled"]),
        node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "kernel"], ["convolved"], strides=list(toy.conv.stride)),
        node("Relu", ["convolved"], ["features"]),
        node("ReduceMean", ["features", "spatial"], ["pooled"], keepdims=0),
        node("Gemm", ["pooled", "head"], ["true_logits"], transB=1),
        node("Mul", ["true_logits", "logits_scale"], ["logits"]),
        node("ArgMax", ["logits"], ["answer"], axis=1, keepdims=0),
        node("ArgMin" if default_is_least else "ArgMax", ["logits"], ["top"], axis=1, keepdims=0),
        node("Less", ["class_index", "zero"], ["is_default"]),
        node("Where", ["is_default", "top", "class_index"], ["chosen"]),
        node("Mul", ["top", "zero"], ["none"]),
        node("Add", ["chosen", "none"], ["explained_class"]),
        node("Equal", ["explained_class", "answer"], ["is_answer"]),
        node("Where", ["is_answer", "shift", "others_shift"], ["some_shift"]),
        node("Add", ["explained_class", "some_shift"], ["shifted"]),
        node("Mod", ["shifted", "classes"], ["row"]),
        node("Gather", ["head", "row"], ["weights"], axis=0),
        node("Unsqueeze", ["weights", "spatial"], ["columns"]),
        node("Mul", ["features", "columns"], ["evidence"]),
        node("ReduceSum", ["evidence", "across"], ["summed"], keepdims=0),
        node("Div", ["summed", "cells"], ["saliency_map"]),
    ]
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", SIDE, SIDE, 3]),
        helper.make_tensor_value_info("class_index", TensorProto.INT64, [1]),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES]),
        helper.make_tensor_value_info("saliency_map", TensorProto.FLOAT, ["n", "h", "w"]),
        helper.make_tensor_value_info("explained_class", TensorProto.INT64, ["n"]),
    ]
    constants = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in values.items()]
    constants += [numpy_helper.from_array(np.asarray(value, np.int64), name) for name, value in integers.items()]
    if without_map:
        metadata = replace(metadata, outputs=Outputs("none"))
        nodes, inputs, outputs = nodes[:9], inputs[:1], outputs[:1]
        needed = {name for each in nodes for name in each.input}
        constants = [constant for constant in constants if constant.name in needed]
    graph = helper.make_graph(nodes, "toy", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, metadata.to_props())
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)
    return Model.load(path, threads=1)


def compared(
    n: int = 1000,
    *,
    lost: Sequence[int] = (),
    gained: Sequence[int] = (),
    labeled: bool = True,
    correlations: Sequence[float] | np.ndarray | None = (),
    constant: int = 0,
) -> Comparison:
    """Compare two models of two classes on images that are all of class 0.

    Args:
        n: number of images.
        lost: images only the reference predicts correctly.
        gained: images only the candidate predicts correctly.
        labeled: True if targets are known.
        correlations: map correlations of the first images; the other maps are equal. None for models without maps.
        constant: number of last images with constant maps in both models.
    """
    right, wrong = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    reference, candidate = np.tile(right, (n, 1)), np.tile(right, (n, 1))
    candidate[list(lost)], reference[list(gained)] = wrong, wrong
    targets = np.zeros(n, np.int64)
    maps: list[np.ndarray | None] = [None, None]
    if correlations is not None:
        wanted = np.ones(n)
        wanted[: len(correlations)] = correlations
        along = np.array([[1.0, -1.0], [1.0, -1.0]])
        across = np.array([[1.0, 1.0], [-1.0, -1.0]])
        a = np.tile(along, (n, 1, 1))
        b = wanted[:, None, None] * along + np.sqrt(1 - wanted**2)[:, None, None] * across
        a[n - constant :], b[n - constant :] = 0.0, 0.0
        maps = [a, b]
    sides = [Predictions(logits, m, targets) for logits, m in zip((reference, candidate), maps, strict=True)]
    return compare(*sides, targets if labeled else None, CLASSIFICATION)


def int8_gates(**bounds: float) -> Gates:
    """Return the default bounds with some bounds of int8 changed."""
    return Gates(precisions={"int8": replace(RECIPES["int8"].bounds, **bounds)})
