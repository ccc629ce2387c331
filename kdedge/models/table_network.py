"""Networks for tables: dense layers, whose contributions are exact for any depth."""

import re
from itertools import pairwise

import torch
from torch import nn

from kdedge_export.modalities.table_encoding import TableEncoding
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.tabular import TabularInput

__all__ = ["DEFAULT_WIDTHS", "build_table_network", "network_widths"]

DEFAULT_WIDTHS = (64, 64)
"""Widths of the hidden layers of `mlp` (.github/docs/benchmarks/tabular.md)."""
_NAME = re.compile(r"mlp(:(?P<widths>\d{1,4}(x\d{1,4})*))?")


def network_widths(name: str) -> tuple[int, ...]:
    """Return the widths of the hidden layers of a network, such as `mlp`, `mlp:32` or `mlp:128x64`.

    Raises:
        UsageError: there is no such network.
    """
    found = _NAME.fullmatch(name)
    widths = DEFAULT_WIDTHS if found is None or not found["widths"] else tuple(map(int, found["widths"].split("x")))
    if found is None or min(widths) < 1:
        raise UsageError(
            f"There is no network {name} for tables. Expected mlp, or mlp:WIDTHS such as mlp:128x64; kdedge train also "
            "takes xgboost and lightgbm."
        )
    return widths


def build_table_network(name: str, outputs: int, spec: TabularInput) -> nn.Module:
    """Build a network with random weights, from the features of `TableEncoding` to `outputs` values.

    The last layer starts with weights whose sum over the outputs is zero. A softmax ignores that sum, and contributions
    to one class would have it as noise. A regression ends in a fixed scale, the spread and the mean of its target.

    Args:
        name: name of the network, see `network_widths`.
        outputs: number of outputs, K.
        spec: columns, and the scale of a regression.
    """
    encoding = TableEncoding(spec)
    sizes = ((encoding.parts + encoding.marks) * len(spec.features), *network_widths(name))
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, width in pairwise(sizes):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
    last = nn.Linear(sizes[-1], outputs)
    layers.append(last)
    with torch.no_grad():
        if outputs > 1:
            last.weight.sub_(last.weight.mean(dim=0))
            last.bias.sub_(last.bias.mean())
        if spec.scale is not None:
            scale = nn.Linear(outputs, outputs)
            scale.weight.copy_(torch.eye(outputs) * spec.scale[1])
            scale.bias.fill_(spec.scale[0])
            layers.append(scale.requires_grad_(False))
    return nn.Sequential(*layers)
