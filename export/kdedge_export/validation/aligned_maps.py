"""Compare gradient maps under the same activation pattern, since rounding decides the side of a kink.

A ReLU passes or blocks a gradient by the sign of its input, and max-pooling routes it to the window's largest value.
PyTorch and ONNX Runtime sum in different orders. Among the millions of units between logits and pixels, some lie within
rounding error of their kink and fall on the other side. Both maps are then correct, and differ by the contribution of
those units, which can reach percents of the range. This difference is not estimated but removed. The exported graph
gives the side of each unit. Units within their own rounding error of a kink are moved to that side, and PyTorch's map
is recomputed; it must then equal the graph's. The moved units are few and leave the logits unchanged. The report lists
the samples with both errors.
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
from kdedge_export.onnx_graph.session import make_feed, open_session
from kdedge_export.torch_export.wrappers import ExportableModel
from kdedge_export.validation.activation_boundaries import ActivationCall, BoundaryRecorder, BoundaryUnit
from kdedge_runtime import Model
from kdedge_runtime.util.arrays import Floats, Integers, Pixels

__all__ = ["AlignedMaps", "align_activations", "has_boundaries", "in_float64", "activation_pattern_float64"]

NEAR = 4.0
"""Units within this multiple of their rounding error count as near a kink, since the graph's rounding is an independent
draw."""
MAX_MOVED = 1e-3
"""Largest fraction of a network's units that may be moved on one sample; rounding cannot explain more."""
_ULPS = 4.0
"""Minimum rounding error of a unit, in float32 steps at its channel's median magnitude."""
_MEDIANS = 2.5
"""Typical rounding error, in medians of the channel's. Of a million units with normal errors, two differ by over ten
medians."""
_LOGITS = 1e-5
"""Fraction of their range by which moved units may change the logits, or four times their own rounding error."""
_POINTWISE = {"Relu", "Clip", "HardSwish", "HardSigmoid", "LeakyRelu"}


def has_boundaries(module: nn.Module) -> TypeGuard[ExportableModel]:
    """Return True if a map is computed by differentiation, so that it can jump; a closed form is continuous."""
    return isinstance(module, ExportableModel) and not module.explained.is_closed_form


@dataclass(frozen=True)
class AlignedMaps:
    """PyTorch's maps with units on the exported graph's sides of their kinks."""

    maps: Floats
    """Maps `[N, h, w]`."""
    moved: Integers
    """Number of moved units, int64 `[N]`; 0 if the map is unmodified."""


def align_activations(module: ExportableModel, model: Model, samples: Pixels, classes: Integers) -> AlignedMaps:
    """Compute PyTorch's maps with units on the exported graph's sides of their kinks.

    Only units within their own rounding error of a kink are moved, by no more than that. A map that is wrong for
    another reason keeps its error. A map stays unmodified if the graph's piecewise-linear functions differ from the
    module's. It also does if more than `MAX_MOVED` of the units would move, or if moving them changes the logits.

    Args:
        module: module whose maps are differentiated (`has_boundaries`).
        model: its exported graph.
        samples: preprocessed samples `[N, …]`.
        classes: int64 `[N]`, the explained classes.
    """
    graph = _Shown(model)
    rows = []
    for sample, picked in zip(samples, classes, strict=True):
        theirs = graph.values(sample[None], int(picked))
        rows.append(_on_their_sides(module, sample[None], picked[None], theirs))
    return AlignedMaps(np.concatenate([maps for maps, _ in rows]), np.array([moved for _, moved in rows], np.int64))


class _Shown:
    """Exported graph with extra outputs: results of elementwise piecewise-linear functions and inputs of pools.

    Neither changes the kernel selection of preceding nodes.
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
        self._session = open_session(shown, exact_sums=True)

    def values(self, sample: Pixels, picked: int) -> list[tuple[bool, Tensor]]:
        """Return, for each such function in graph order, True for a pool, and its tensor."""
        if not self._names:
            return []
        found = self._session.run(self._names, make_feed(self._session, sample, picked))
        return list(zip(self._kinds, map(torch.from_numpy, found), strict=True))


def activation_pattern_float64(module: ExportableModel, samples: Pixels, classes: Integers) -> Floats:
    """Compute PyTorch's float32 maps with every unit on its float64 side of the kink.

    Args:
        module: module whose maps are differentiated (`has_boundaries`).
        samples: preprocessed samples `[N, …]`.
        classes: int64 `[N]`, the explained classes.

    Returns:
        Maps `[N, h, w]`.
    """
    rows = []
    for sample, picked in zip(samples, classes, strict=True):
        exact: list[Tensor] = []
        units: list[BoundaryUnit] = []

        def note(call: ActivationCall, exact: list[Tensor] = exact) -> None:
            exact.append(call.shown.clone())

        def collect(call: ActivationCall, exact: list[Tensor] = exact, units: list[BoundaryUnit] = units) -> None:
            turned = call.turned(call.x, exact[call.number], torch.full_like(call.x, float("inf")))
            units.extend(BoundaryUnit(call.number, index, push) for index, push in turned)

        with in_float64(module):
            _run(module, sample[None], picked[None], BoundaryRecorder(note))
        ours = _run(module, sample[None], picked[None], BoundaryRecorder(collect)).maps
        moved = _run(module, sample[None], picked[None], BoundaryRecorder(pushed=units)).maps if units else ours
        assert moved is not None
        rows.append(moved)
    return np.concatenate(rows)


def _on_their_sides(
    module: ExportableModel, sample: Pixels, picked: Integers, theirs: list[tuple[bool, Tensor]]
) -> tuple[Floats, int]:
    """Return the map of one sample, and the number of units moved for it."""
    single: list[tuple[bool, Tensor]] = []
    units: list[BoundaryUnit] = []

    def collect(call: ActivationCall) -> None:
        x = single[call.number][1]
        turned = call.turned(x, theirs[call.number][1].to(x.device), NEAR * _rounding(x, call.x))
        units.extend(BoundaryUnit(call.number, index, push) for index, push in turned)

    ours = _run(module, sample, picked, BoundaryRecorder(lambda call: single.append((call.pools, call.x))))
    assert ours.maps is not None
    if [(pools, x.shape) for pools, x in single] != [(pools, x.shape) for pools, x in theirs]:
        return ours.maps, 0
    with in_float64(module):
        exact = _run(module, sample, picked, BoundaryRecorder(collect))
    if not 0 < len(units) <= max(1, MAX_MOVED * sum(x.numel() for _, x in single)):
        return ours.maps, 0
    moved = _run(module, sample, picked, BoundaryRecorder(pushed=units))
    allowed = np.maximum(_LOGITS, NEAR * agreement.logits_error(exact.logits, ours.logits))
    if not (agreement.logits_error(ours.logits, moved.logits) <= allowed).all():
        return ours.maps, 0
    assert moved.maps is not None
    return moved.maps, len(units)


def _rounding(single: Tensor, double: Tensor) -> Tensor:
    """Return the rounding error of each unit: its own or its channel's typical one, whichever is larger.

    A unit's own error may be small by chance. The error of the largest unit does not bound the others, since channels
    may differ by octaves. Units without spatial positions are compared with all units of the layer.

    Args:
        single: float32 values `[N, C, …]`.
        double: the same in float64.
    """
    own = (double - single).abs()
    rows = (single.transpose(0, 1) if single.dim() > 2 else single[None]).flatten(1)
    errors = (own.transpose(0, 1) if own.dim() > 2 else own[None]).flatten(1)
    ulp = _ULPS * torch.finfo(torch.float32).eps * rows.abs().median(dim=1).values
    usual = torch.maximum(_MEDIANS * errors.median(dim=1).values, ulp.to(errors))
    return torch.maximum(own, usual.reshape(1, -1, *[1] * (own.dim() - 2)) if own.dim() > 2 else usual)


def _run(module: ExportableModel, sample: Pixels, picked: Integers, calls: BoundaryRecorder) -> Predictions:
    with calls:
        return predict(module, sample, picked)


@contextmanager
def in_float64(module: nn.Module) -> Iterator[None]:
    """Convert a module's weights to float64 inside the block; converting back is lossless."""
    module.double()
    try:
        yield
    finally:
        module.float()
