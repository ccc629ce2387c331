"""Encoding of rows inside the graph: numbers piecewise linearly, categories as one of several, missing values."""

import numpy as np
import torch
from torch import Tensor, nn

from kdedge_runtime.modalities.table_column import TableColumn
from kdedge_runtime.modalities.tabular import TabularInput

__all__ = ["TableEncoding"]

_BEYOND = 1.0
"""Widths by which the first and the last interval of a number extend."""


class TableEncoding(nn.Module):
    """Encode rows `[N, F]` as features `[N, C, 1, F]`: up to `C` numbers for each column, see `TableColumn`.

    Zero is the average training row. A column that a mask hides is zero, too. Codes that training did not have, and
    negative infinity, are missing values.
    """

    def __init__(self, spec: TabularInput) -> None:
        super().__init__()
        columns = spec.features
        self.parts = max([1, *(column.parts for column in columns)])
        self.marks = any(column.missing > 0 for column in columns)
        is_number = [column.kind == "numeric" for column in columns]
        self._keep("is_number", is_number, torch.bool)
        for name, values in _constants(columns, self.parts).items():
            self._keep(name, values, torch.float32)
        self._keep("missing", [column.missing for column in columns], torch.float32)

    def forward(self, sample: Tensor) -> Tensor:
        """Encode float32 `[N, F]`; see `TabularInput`."""
        is_number = self.get_buffer("is_number")
        is_hidden = sample == torch.inf
        same = (sample[:, None] == self.get_buffer("code")).to(sample.dtype)
        is_no_number = is_number & (sample.isnan() | (sample == -torch.inf))
        is_missing = (is_no_number | (~is_number & (same.sum(dim=1) == 0))) & ~is_hidden
        is_known = ~is_missing & ~is_hidden
        value = torch.where(is_known, sample, 0.0)[:, None]
        share = (value - self.get_buffer("start")) * self.get_buffer("scale")
        share = torch.minimum(torch.maximum(share, self.get_buffer("least")), self.get_buffer("most"))
        coded = torch.where(is_number, share, same) - self.get_buffer("reference")
        coded = coded * is_known[:, None].to(share.dtype)
        if self.marks:
            missing = self.get_buffer("missing")
            mark = (is_missing.to(share.dtype) - missing) * (missing > 0).to(share.dtype)
            mark = mark * (~is_hidden).to(share.dtype)
            coded = torch.cat([coded, mark[:, None]], dim=1)
        return coded[:, :, None]

    def _keep(self, name: str, values: object, dtype: torch.dtype) -> None:
        self.register_buffer(name, torch.tensor(np.array(values), dtype=dtype), persistent=False)


def _constants(columns: tuple[TableColumn, ...], parts: int) -> dict[str, np.ndarray]:
    """Return the constants of each part of each column, `[parts, F]`; parts that a column does not have give zero."""
    shape = parts, len(columns)
    found = {name: np.zeros(shape) for name in ("start", "scale", "least", "most", "reference")}
    found["code"] = np.full(shape, -3.0)  # equal to no code
    for place, column in enumerate(columns):
        used = slice(column.parts)
        found["reference"][used, place] = column.reference
        if column.kind == "categorical":
            found["code"][used, place] = np.where(column.is_trained, np.arange(column.parts), -3.0)
            continue
        edges = np.array(column.edges)
        found["start"][used, place] = edges[:-1]
        found["scale"][used, place] = 1 / np.maximum(np.diff(edges), np.finfo(np.float32).tiny)
        found["most"][used, place] = 1.0
        if column.parts:
            found["least"][0, place] = -_BEYOND
            found["most"][column.parts - 1, place] = 1 + _BEYOND
    return found
