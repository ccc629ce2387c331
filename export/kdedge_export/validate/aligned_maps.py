"""Compare differentiated maps under one pattern of activation: at a kink, rounding decides a side.

A ReLU passes a gradient or stops it by the sign of its input, and max pooling sends it to the largest of its window.
PyTorch and ONNX Runtime add in another order. Of the millions of units that a gradient at the pixels passes, some lie
within rounding of their kink and fall on the other side; both maps are then right, and differ by those units' share,
which can be percents of the range. How much they may differ is not estimated. The graph shows on which side each unit
lies. Those that lie on another side in PyTorch, and within their own rounding of their kink, are taken there, and
PyTorch's map is computed again: it must now be the graph's. They are few, the logits stay, and the report names the
pictures with both figures.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from kdedge_export.metrics import agreement
from kdedge_export.metrics.torch_predictions import Predictions, predict
from kdedge_export.onnx_graph.node_attributes import attributes
from kdedge_export.onnx_graph.session import feed, open_session
from kdedge_export.saliency import ByCells, Head
from kdedge_export.torch_export.wrappers import Deployed
from kdedge_export.validate.activation_boundaries import Call, KinkedCalls, Unit
from kdedge_runtime import Model
from kdedge_runtime.util.arrays import Floats, Integers, Pixels

__all__ = ["Aligned", "at_the_same_kinks", "has_kinks", "in_float64", "sides_of_float64"]

NEAR = 4.0
"""A unit is at its kink within so many times its rounding: the graph's is another draw of the same size."""
MOST_MOVED = 1e-3
"""Share of a network's units that may be moved on one picture; where rounding moves more, it is no rounding."""
_ULPS = 4.0
"""Rounding of a unit is at least so many steps of float32 at its channel's usual size."""
_MEDIANS = 2.5
"""Usual rounding, in medians of a channel's. Of a million units with normal errors, two differ by over ten medians."""
_LOGITS = 1e-5
"""Share of their range by which moved units may move the logits, or four times their own rounding."""
_POINTWISE = {"Relu", "Clip", "HardSwish", "HardSigmoid", "LeakyRelu"}


def has_kinks(module: nn.Module) -> TypeGuard[Deployed]:
    """Whether a map is differentiated, so that it can jump; a closed form is continuous."""
    if not isinstance(module, Deployed):
        return False
    return not (isinstance(module.explained, ByCells) and isinstance(module.explained.head, Head))


@dataclass(frozen=True)
class Aligned:
    """PyTorch's own maps, with units at their kinks on the sides where an exported graph has them."""

    maps: Floats
    """`[N, h, w]`."""
    moved: Integers
    """Units that were moved, int64 `[N]`; 0 where the map is PyTorch's as it is."""


def at_the_same_kinks(module: Deployed, model: Model, images: Pixels, classes: Integers) -> Aligned:
    """Compute PyTorch's maps with units at their kinks on the sides where an exported graph has them.

    Only units within their own rounding of a kink are moved, each by that little: a map that is wrong in any other way
    keeps its error. So do maps of a graph whose functions with kinks are not those of the module, one by one, maps
    for which more than `MOST_MOVED` of the units would be moved, and those whose logits the moving would change.

    Args:
        module: its maps are differentiated (`has_kinks`).
        model: its exported graph.
        images: uint8 RGB `[N, H, W, 3]`.
        classes: int64 `[N]`, explained.
    """
    graph = _Shown(model)
    rows = []
    for image, picked in zip(images, classes, strict=True):
        theirs = graph.values(image[None], int(picked))
        rows.append(_on_their_sides(module, image[None], picked[None], theirs))
    return Aligned(np.concatenate([maps for maps, _ in rows]), np.array([moved for _, moved in rows], np.int64))


class _Shown:
    """A graph that also gives what its functions with kinks work on: results of those of each value, inputs of pools.

    Both can be had without another kernel being chosen for what comes before.
    """

    def __init__(self, model: Model) -> None:
        shown = onnx.load(model.path)
        self._kinds: list[bool] = []
        self._names: list[str] = []
        for node in shown.graph.node:
            pools = node.op_type == "MaxPool" and max(attributes(node)["kernel_shape"]) > 1
            if pools or node.op_type in _POINTWISE:
                self._kinds.append(pools)
                self._names.append(node.input[0] if pools else node.output[0])
        present = {value.name for value in shown.graph.output}
        more = [name for name in dict.fromkeys(self._names) if name not in present]
        shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in more)
        self._session = open_session(shown, exact_int8=True)

    def values(self, image: Pixels, picked: int) -> list[tuple[bool, Tensor]]:
        """Of each such function in the order of the graph, whether it is a pool, and the tensor."""
        if not self._names:
            return []
        found = self._session.run(self._names, feed(self._session, image, picked))
        return list(zip(self._kinds, map(torch.from_numpy, found), strict=True))


def sides_of_float64(module: Deployed, images: Pixels, classes: Integers) -> Floats:
    """PyTorch's own maps in float32, with every unit on the side of its kink where float64 has it.

    Args:
        module: its maps are differentiated (`has_kinks`).
        images: uint8 RGB `[N, H, W, 3]`.
        classes: int64 `[N]`, explained.

    Returns:
        `[N, h, w]`.
    """
    rows = []
    for image, picked in zip(images, classes, strict=True):
        exact: list[Tensor] = []
        units: list[Unit] = []

        def note(call: Call, exact: list[Tensor] = exact) -> None:
            exact.append(call.shown.clone())

        def look(call: Call, exact: list[Tensor] = exact, units: list[Unit] = units) -> None:
            turned = call.turned(call.x, exact[call.number], torch.full_like(call.x, float("inf")))
            units.extend(Unit(call.number, index, push) for index, push in turned)

        with in_float64(module):
            _run(module, image[None], picked[None], KinkedCalls(note))
        ours = _run(module, image[None], picked[None], KinkedCalls(look)).maps
        moved = _run(module, image[None], picked[None], KinkedCalls(pushed=units)).maps if units else ours
        assert moved is not None
        rows.append(moved)
    return np.concatenate(rows)


def _on_their_sides(
    module: Deployed, image: Pixels, picked: Integers, theirs: list[tuple[bool, Tensor]]
) -> tuple[Floats, int]:
    """The map of one image, and how many units were moved for it."""
    single: list[tuple[bool, Tensor]] = []
    units: list[Unit] = []

    def look(call: Call) -> None:
        x = single[call.number][1]
        turned = call.turned(x, theirs[call.number][1].to(x.device), NEAR * _rounding(x, call.x))
        units.extend(Unit(call.number, index, push) for index, push in turned)

    ours = _run(module, image, picked, KinkedCalls(lambda call: single.append((call.pools, call.x))))
    assert ours.maps is not None
    if [(pools, x.shape) for pools, x in single] != [(pools, x.shape) for pools, x in theirs]:
        return ours.maps, 0
    with in_float64(module):
        exact = _run(module, image, picked, KinkedCalls(look))
    if not 0 < len(units) <= max(1, MOST_MOVED * sum(x.numel() for _, x in single)):
        return ours.maps, 0
    moved = _run(module, image, picked, KinkedCalls(pushed=units))
    allowed = np.maximum(_LOGITS, NEAR * agreement.logits_error(exact.logits, ours.logits))
    if not (agreement.logits_error(ours.logits, moved.logits) <= allowed).all():
        return ours.maps, 0
    assert moved.maps is not None
    return moved.maps, len(units)


def _rounding(single: Tensor, double: Tensor) -> Tensor:
    """Return the rounding of each unit: its own or the usual one of its channel, whichever is larger.

    A unit's own error may be small by luck, and that of the largest unit of a tensor says nothing of the others:
    channels may lie octaves apart. Units without places are compared with all units of the layer.

    Args:
        single: `[N, C, …]` as float32 computes it.
        double: likewise in float64.
    """
    own = (double - single).abs()
    rows = (single.transpose(0, 1) if single.dim() > 2 else single[None]).flatten(1)
    errors = (own.transpose(0, 1) if own.dim() > 2 else own[None]).flatten(1)
    ulp = _ULPS * torch.finfo(torch.float32).eps * rows.abs().median(dim=1).values
    usual = torch.maximum(_MEDIANS * errors.median(dim=1).values, ulp.to(errors))
    return torch.maximum(own, usual.reshape(1, -1, *[1] * (own.dim() - 2)) if own.dim() > 2 else usual)


def _run(module: Deployed, image: Pixels, picked: Integers, calls: KinkedCalls) -> Predictions:
    with calls:
        return predict(module, image, picked)


@contextmanager
def in_float64(module: nn.Module) -> Iterator[None]:
    """The same weights in more digits; rounded back they are what they were."""
    module.double()
    try:
        yield
    finally:
        module.float()
