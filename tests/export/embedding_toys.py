"""Tiny embedding model as a torch module and as a hand-built ONNX graph, and images of its classes."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from kdedge_runtime import Model
from kdedge_runtime.embedding import Embedding
from kdedge_runtime.familiarity import Familiarity
from kdedge_runtime.metadata import Metadata, Outputs
from kdedge_runtime.modalities.image import ImageInput

SIDE, STRIDE, CHANNELS = 32, 4, 24
LABELS = ("brick", "fern", "sand", "wave", "wool")
_CELLS = SIDE // STRIDE
_TINY = 1e-6
"""Minimum length of pooled features, which are zero for a gray image."""


def textures(n: int, seed: int, noise: float = 45.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw noisy images of the classes' textures, uint8 `[n, SIDE, SIDE, 3]`, and their classes int64 `[n]`."""
    patterns = np.random.default_rng(11).normal(0, 40, (len(LABELS), 8, 8, 3))
    rng, classes = np.random.default_rng(seed), np.arange(n) % len(LABELS)
    tiled = np.tile(patterns[classes], (1, SIDE // 8, SIDE // 8, 1))
    # Images of a class differ by a disturbance of the whole image, which not every embedding ignores.
    common = rng.normal(0, noise, (n, 8, 8, 3)).repeat(SIDE // 8, 1).repeat(SIDE // 8, 2)
    images = 120 + tiled + common + rng.normal(0, noise / 2, (n, SIDE, SIDE, 3))
    return np.clip(images, 0, 255).astype(np.uint8), classes


class EmbeddingToy(nn.Module):
    """Convolution, ReLU and mean, normalized; the map divides the similarity to a prototype among the positions."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.conv = nn.Conv2d(3, CHANNELS, STRIDE, stride=STRIDE)
        nn.init.normal_(self.conv.weight, std=0.25, generator=generator)
        nn.init.constant_(self.conv.bias, -0.6)
        self.register_buffer("prototypes", torch.ones(len(LABELS), CHANNELS))
        images, classes = textures(200, seed=1)
        with torch.no_grad():
            embeddings = self.embed(torch.from_numpy(images))[0]
        self.prototypes = torch.stack([embeddings[classes == each].mean(dim=0) for each in range(len(LABELS))])

    def embed(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the embeddings, the features and the lengths of the pooled features."""
        features = self.conv((image.float() / 127.5 - 1).permute(0, 3, 1, 2)).relu()
        pooled = features.mean(dim=(2, 3))
        length = pooled.norm(dim=1, keepdim=True).clamp(min=_TINY)
        return pooled / length, features, length

    def forward(self, image: Tensor, class_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        embedding, features, length = self.embed(image)
        directions = nn.functional.normalize(self.prototypes, dim=1)
        logits = embedding @ directions.T
        explained = torch.where(class_index < 0, logits.argmax(dim=1), class_index)
        rows = directions[explained]
        gradient = rows / length / _CELLS**2
        return logits, torch.einsum("nchw,nc->nhw", features, gradient), explained


def embedding_file(
    toy: EmbeddingToy,
    path: Path,
    *,
    noise: float = 0.0,
    scrambled: float = 0.0,
    threshold: float | None = None,
) -> Model:
    """Write the toy as an embedding file, intact or broken.

    Args:
        toy: model with the weights.
        path: output file.
        noise: relative error of the weights, as after quantization.
        scrambled: fraction of images with a random output `embedding`, chosen by a hash; logits and maps are intact.
        threshold: threshold of familiarity.
    """
    rng = np.random.default_rng(2)
    kernel = toy.conv.weight.detach().numpy()
    values = {
        "prototypes": toy.prototypes.numpy(),
        "kernel": kernel * (1 + noise * rng.standard_normal(kernel.shape)),
        "bias": toy.conv.bias.detach().numpy(),
        "half": np.array(127.5),
        "one": np.array(1),
        "tiny": np.array(_TINY),
        "cells": np.array(_CELLS**2),
        "scramble": rng.normal(size=CHANNELS) * 1e4,
        "share": np.array(scrambled),
        "count": np.array(CHANNELS),
    }
    integers = {
        "class_index": np.array([-1]),
        "zero": np.array([0]),
        "spatial": np.array([2, 3]),
        "across": np.array([1]),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        node("Div", ["floats", "half"], ["doubled"]),
        node("Sub", ["doubled", "one"], ["scaled"]),
        node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "kernel", "bias"], ["convolved"], strides=[STRIDE, STRIDE]),
        node("Relu", ["convolved"], ["features"]),
        node("ReduceMean", ["features", "spatial"], ["mean"], keepdims=0),
        node("ReduceL2", ["mean", "across"], ["any_length"], keepdims=1),
        node("Max", ["any_length", "tiny"], ["length"]),
        node("Div", ["mean", "length"], ["direction"]),
        # The fractional part of a large multiple is a hash, uniform in [0, 1].
        node("Mul", ["mean", "scramble"], ["multiplied"]),
        node("Floor", ["multiplied"], ["whole"]),
        node("Sub", ["multiplied", "whole"], ["hashed"]),
        node("ReduceL2", ["hashed", "across"], ["hashed_length"], keepdims=1),
        node("Div", ["hashed", "hashed_length"], ["random"]),
        node("ReduceMax", ["hashed", "across"], ["largest"], keepdims=1),
        node("Pow", ["largest", "count"], ["uniform"]),
        node("Less", ["uniform", "share"], ["is_scrambled"]),
        node("Where", ["is_scrambled", "random", "direction"], ["embedding"]),
        node("ReduceL2", ["prototypes", "across"], ["lengths"], keepdims=1),
        node("Div", ["prototypes", "lengths"], ["directions"]),
        node("Transpose", ["directions"], ["columns"], perm=[1, 0]),
        node("MatMul", ["direction", "columns"], ["logits"]),
        node("ReduceMax", ["logits", "across"], ["familiarity"], keepdims=0),
        node("ArgMax", ["logits"], ["top"], axis=1, keepdims=0),
        node("Less", ["class_index", "zero"], ["is_default"]),
        node("Where", ["is_default", "top", "class_index"], ["requested"]),
        node("Mul", ["top", "zero"], ["none"]),
        node("Add", ["requested", "none"], ["explained_class"]),
        node("Gather", ["directions", "explained_class"], ["rows"], axis=0),
        node("Div", ["rows", "length"], ["sum_gradient"]),
        node("Div", ["sum_gradient", "cells"], ["gradient"]),
        node("Unsqueeze", ["gradient", "spatial"], ["gradients"]),
        node("Mul", ["features", "gradients"], ["evidence"]),
        node("ReduceSum", ["evidence", "across"], ["saliency_map"], keepdims=0),
    ]
    info = helper.make_tensor_value_info
    inputs = [
        info("image", TensorProto.UINT8, ["n", SIDE, SIDE, 3]),
        info("class_index", TensorProto.INT64, [1]),
        info("prototypes", TensorProto.FLOAT, ["m", CHANNELS]),
    ]
    outputs = [
        info("logits", TensorProto.FLOAT, ["n", "m"]),
        info("saliency_map", TensorProto.FLOAT, ["n", _CELLS, _CELLS]),
        info("explained_class", TensorProto.INT64, ["n"]),
        info("embedding", TensorProto.FLOAT, ["n", CHANNELS]),
        info("familiarity", TensorProto.FLOAT, ["n"]),
    ]
    constants = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in values.items()]
    constants += [numpy_helper.from_array(np.asarray(value, np.int64), name) for name, value in integers.items()]
    graph = helper.make_graph(nodes, "textures", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    metadata = Metadata(
        labels=LABELS,
        input=ImageInput(SIDE, SIDE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        outputs=Outputs("gradcam", "conv", None, _CELLS, _CELLS),
        task="embedding",
        familiarity=Familiarity("cosine", threshold),
        embedding=Embedding(CHANNELS, "0123456789abcdef"),
    )
    helper.set_model_props(model, metadata.to_props())
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)
    return Model.load(path, threads=1)
