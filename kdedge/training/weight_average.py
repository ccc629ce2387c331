"""Averages of the weights before and after all layers are fine-tuned.

The first weights are those of the fitted last layer on frozen features, the others those of the last epoch. Their
averages are often more accurate than both: fine-tuning fits the samples, and the frozen layers keep what is general.

Source: Wortsman et al., Robust Fine-Tuning of Zero-Shot Models, CVPR 2022, eq. 1 (WiSE-FT), after linear probing.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

__all__ = ["SHARES", "average_weights", "choose_average"]

SHARES = (0.25, 0.5, 0.75)
"""Compared shares of the fine-tuned weights."""


def average_weights(first: Mapping[str, Tensor], last: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return `(1 - share) · first + share · last` for all floating-point tensors, and the others of `last`."""
    return {
        name: first[name].to(value).lerp(value, share) if value.is_floating_point() else value
        for name, value in last.items()
    }


def choose_average(
    validate: Callable[[float], dict[str, Any]],
    merit: Callable[[Mapping[str, Any]], tuple[float, ...]],
    best: dict[str, Any],
) -> dict[str, Any]:
    """Return the metrics of the best average, or `best` if no average is better.

    Args:
        validate: loads the average with a share of the fine-tuned weights and returns its metrics.
        merit: sort key of metrics.
        best: metrics of the best epoch.
    """
    return max([best, *map(validate, SHARES)], key=merit)
