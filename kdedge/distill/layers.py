"""Which inner layers of two networks stand for the same stage."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdedge.distill.watched import Watched
from kdedge_export.saliency.find import example_input
from kdedge_export.saliency.trace import evaluating
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
        UsageError: a path names no layer, or one that has no `[N, C, h, w]` output.
    """
    theirs, ours = _outputs(teacher), _outputs(student)
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
    return tuple(zip(stages(student)[-MOST_PAIRS:], stages(teacher)[-MOST_PAIRS:], strict=False))


def stages(watched: Watched) -> list[str]:
    """The last layer of each resolution, from fine to coarse, by module path."""
    last: dict[tuple[int, int], str] = {}
    for path, output in _outputs(watched).items():
        if min(output.shape[2:]) > 1:
            last[(output.shape[2], output.shape[3])] = path
    return [last[size] for size in sorted(last, reverse=True)]


def channels(watched: Watched, layers: Sequence[str]) -> list[int]:
    """The number of channels of each layer's output."""
    outputs = _outputs(watched)
    return [outputs[path].shape[1] for path in layers]


def projections(hinted: Sequence[tuple[int, int]]) -> nn.ModuleList:
    """A 1×1 convolution a pair of layers, from the student's channels to the teacher's."""
    return nn.ModuleList(nn.Conv2d(inputs, outputs, 1) for inputs, outputs in hinted)


def _outputs(watched: Watched) -> dict[str, Tensor]:
    """The `[N, C, h, w]` outputs of all layers, in the order in which the layers end."""
    outputs: dict[str, Tensor] = {}

    def note(path: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            outputs.pop(path, None)
            outputs[path] = output

    handles = [
        layer.register_forward_hook(lambda _module, _args, output, path=path: note(path, output))
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
    return outputs
