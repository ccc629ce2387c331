"""Which inner layers of two networks stand for the same stage."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdedge.training.instrumented_model import Watched
from kdedge_export.saliency.head_finder import example_input
from kdedge_export.saliency.tracing import evaluating
from kdedge_runtime.errors import UsageError

__all__ = ["channels", "pair_layers", "projections", "stages"]

MOST_PAIRS = 3
"""AT and FitNets compare three stages of the networks they were published with."""


def pair_layers(student: Watched, teacher: Watched, given: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """The layers that `at` and `hint` compare, as (student's path, teacher's path).

    Args:
        student: the student.
        teacher: the teacher.
        given: the user's own choice; without one the last layers of the three coarsest resolutions of each network are
            paired, from the coarsest on.

    Raises:
        UsageError: a path names no layer, or one that has no `[N, C, h, w]` output; or there are none to compare.
    """
    theirs, ours = _shapes(teacher)[1], _shapes(student)[1]
    for path, outputs, who in (
        *((p, ours, "student") for p in given),
        *((p, theirs, "teacher") for p in given.values()),
    ):
        if path not in outputs:
            raise UsageError(
                f"The {who} has no layer {path!r} with an output of [N, C, h, w]. Its stages end in: "
                f"{', '.join(stages(student if who == 'student' else teacher))}."
            )
    if given:
        return tuple(given.items())
    from_coarse = tuple(zip(reversed(stages(student)), reversed(stages(teacher)), strict=False))  # one may have fewer
    if not from_coarse:
        raise UsageError(
            "Student and teacher have no layers that could be compared: one of them has none with an output of "
            "[N, C, h, w]. Leave the terms at and hint out."
        )
    return from_coarse[:MOST_PAIRS][::-1]


def stages(watched: Watched) -> list[str]:
    """The last layer of each resolution, from fine to coarse, by module path.

    A layer inside of a block that lowers the resolution belongs to the stage that the block begins, even where its own
    output is still as fine as that of the stage before.
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


def channels(watched: Watched, layers: Sequence[str]) -> list[int]:
    """The number of channels of each layer's output."""
    _, outputs = _shapes(watched)
    return [outputs[path][1] for path in layers]


def projections(hinted: Sequence[tuple[int, int]]) -> nn.ModuleList:
    """A 1×1 convolution a pair of layers, from the student's channels to the teacher's."""
    return nn.ModuleList(nn.Conv2d(inputs, outputs, 1) for inputs, outputs in hinted)


def _shapes(watched: Watched) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int, int, int]]]:
    """Height and width that go into each layer, and the `[N, C, h, w]` that come out, in the order of their ends."""
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
    example = example_input(watched.spec.height, watched.spec.width).to(watched.normalise.mean.device)
    try:
        with evaluating(watched), torch.no_grad():
            watched.model(example)
    finally:
        for handle in handles:
            handle.remove()
    return inputs, outputs
