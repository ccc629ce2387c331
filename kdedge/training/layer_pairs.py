"""Pairing of intermediate layers of student and teacher."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.pooled_features import POOLED, watch_pooled
from kdedge_export.modalities import modality_of
from kdedge_export.saliency.tracing import evaluating
from kdedge_runtime.errors import UsageError

__all__ = ["channels", "pair_layers", "projections", "stages"]

MAX_PAIRS = 3
"""Maximum number of layer pairs; AT and FitNets compare three stages in their papers."""


def pair_layers(
    student: InstrumentedModel, teacher: InstrumentedModel, given: dict[str, str]
) -> tuple[tuple[str, str], ...]:
    """Return the layers that `at` and `hint` compare, as (student path, teacher path).

    Args:
        student: student model.
        teacher: teacher model.
        given: layers chosen by the user. If empty, the last layers of the three coarsest resolutions are paired,
            starting from the coarsest. An encoder without classes is compared by its pooled features.

    Raises:
        UsageError: A path is not a layer with an output `[N, C, h, w]`, or there are no layers to compare.
    """
    if teacher.is_headless and not given:
        return ((POOLED, POOLED),)
    theirs = _shapes(teacher, pooled=POOLED in given.values())[1]
    ours = _shapes(student, pooled=POOLED in given)[1]
    for path, outputs, role in (
        *((p, ours, "student") for p in given),
        *((p, theirs, "teacher") for p in given.values()),
    ):
        if path not in outputs:
            raise UsageError(
                f"The {role} has no layer {path!r} with an output of [N, C, h, w]. Its stages end in: "
                f"{', '.join(stages(student if role == 'student' else teacher))}."
            )
    if given:
        return tuple(given.items())
    from_coarse = tuple(
        zip(reversed(stages(student)), reversed(stages(teacher)), strict=False)
    )  # one model may have fewer stages
    if not from_coarse:
        raise UsageError(
            "Student and teacher have no comparable layers: one of them has no layer with an output of "
            "[N, C, h, w]. Remove the terms at and hint."
        )
    return from_coarse[:MAX_PAIRS][::-1]


def stages(watched: InstrumentedModel) -> list[str]:
    """Return the module path of the last layer of each resolution, from fine to coarse.

    A layer inside a downsampling block belongs to the stage that the block starts, even if its own output still has the
    resolution of the previous stage.
    """
    inputs, outputs = _shapes(watched)
    last: dict[tuple[int, int], str] = {}
    for path, shape in outputs.items():
        size = shape[2:]
        around = [".".join(path.split(".")[:depth]) for depth in range(1, path.count(".") + 1)]
        begins = any(inputs.get(block) == size and block in outputs and outputs[block][2:] != size for block in around)
        if min(size) > 1 and not begins:
            last[size] = path
    return [last[size] for size in sorted(last, reverse=True)]


def channels(watched: InstrumentedModel, layers: Sequence[str]) -> list[int]:
    """Return the number of output channels of each layer."""
    _, outputs = _shapes(watched, pooled=POOLED in layers)
    return [outputs[path][1] for path in layers]


def projections(hinted: Sequence[tuple[int, int]]) -> nn.ModuleList:
    """Build a 1×1 convolution per layer pair, from the student's channels to the teacher's."""
    return nn.ModuleList(nn.Conv2d(inputs, outputs, 1) for inputs, outputs in hinted)


def _shapes(
    watched: InstrumentedModel, *, pooled: bool = False
) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int, int, int]]]:
    """Return the input size and the output shape `[N, C, h, w]` of each layer, in execution order.

    With `pooled`, the pooled features are among the outputs.
    """
    inputs: dict[str, tuple[int, int]] = {}
    outputs: dict[str, tuple[int, int, int, int]] = {}

    def note(path: str, args: tuple[object, ...], output: object) -> None:
        if args and isinstance(args[0], Tensor) and args[0].ndim == 4:
            inputs[path] = (args[0].shape[2], args[0].shape[3])
        if isinstance(output, Tensor) and output.ndim == 4:
            outputs.pop(path, None)
            outputs[path] = (output.shape[0], output.shape[1], output.shape[2], output.shape[3])

    handles = [
        layer.register_forward_hook(lambda _module, args, output, path=path: note(path, args, output))
        for path, layer in watched.model.named_modules()
        if path
    ]
    example = modality_of(watched.spec).example(watched.spec).to(next(watched.parameters()).device)
    if pooled:
        handles.append(watch_pooled(watched.model, example, lambda value: note(POOLED, (), value), watched.is_headless))
    try:
        with evaluating(watched), torch.no_grad():
            watched.model(example)
    finally:
        for handle in handles:
            handle.remove()
    return inputs, outputs
