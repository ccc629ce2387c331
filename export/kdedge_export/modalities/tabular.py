"""Tables at export: encoding in the graph, corruptions, and waterfalls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kdedge_export.html.thumbnails import drawing_uri
from kdedge_export.modalities.export_modality import Corruption, ExportModality
from kdedge_runtime.drawing.waterfall import bars_of, columns_of, draw_row, draw_waterfall
from kdedge_runtime.modalities.table_column import HIDDEN
from kdedge_runtime.modalities.tabular import TabularInput
from kdedge_runtime.util.arrays import Floats, Pixels

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["TABULAR", "TabularExport"]

_BARS = 8
"""Maximum number of bars in a page, which shows many waterfalls."""
_COLUMNS = 12
"""Number of columns of a row in a page, if there are not more with bars."""
_BEYOND = 0.1
"""Part of the range by which random numbers exceed it."""
_MISSING = 0.05
"""Fraction of random numbers that are missing."""


@dataclass(frozen=True)
class TabularExport(ExportModality):
    """Tables at export."""

    spec: TabularInput = field(default_factory=lambda: TabularInput(()))
    """Columns of the samples."""

    def for_input(self, spec: TabularInput) -> TabularExport:
        """Return the modality for tables with these columns."""
        return TabularExport(spec)

    @property
    def corruptions(self) -> Mapping[str, Corruption]:
        """Values that are missing, and numbers that deviate by a part of their interquartile range."""
        return {
            "1 of 10 values missing": partial(_without, share=0.1),
            "3 of 10 values missing": partial(_without, share=0.3),
            "numbers ± 10% of their spread": partial(_noise, spread=_spread(self.spec, 0.1)),
            "numbers ± 30% of their spread": partial(_noise, spread=_spread(self.spec, 0.3)),
        }

    def front_end(self, spec: TabularInput) -> nn.Module:
        """Return the encoding; see `TableEncoding`."""
        from kdedge_export.modalities.table_encoding import TableEncoding

        return TableEncoding(spec)

    def example(self, spec: TabularInput) -> Tensor:
        """Return the encoding of a random row, float32 `[1, C, 1, F]`."""
        import torch

        row = self.random_samples(spec, 1, np.random.default_rng(0))
        with torch.no_grad():
            encoded: Tensor = self.front_end(spec)(torch.from_numpy(row))
        return encoded

    def random_samples(self, spec: TabularInput, count: int, rng: np.random.Generator) -> Floats:
        """Draw each column by itself: a number within and slightly beyond its range, or any category.

        Values are missing in columns where training rows lack them.
        """
        rows = np.empty((count, *spec.shape), np.float32)
        for place, column in enumerate(spec.features):
            if column.kind == "categorical":
                least = -1 if column.missing > 0 else 0
                rows[:, place] = rng.integers(least, max(1, len(column.categories)), count)
                continue
            low, high = (column.edges[0], column.edges[-1]) if column.edges else (0.0, 1.0)
            beyond = _BEYOND * (high - low)
            rows[:, place] = rng.uniform(low - beyond, high + beyond, count)
            if column.missing > 0:
                rows[rng.random(count) < _MISSING, place] = np.nan
        return rows

    def smoothed(self, sample: Floats) -> Floats:
        """Return the reference, the average training row."""
        return np.full_like(sample, HIDDEN)

    @property
    def has_wide_figures(self) -> bool:
        """True: waterfalls have names and values of columns."""
        return True

    @property
    def map_legend(self) -> str:
        """Sentence about waterfalls; see `ExportModality`."""
        return (
            "Bars show the contribution of each column, relative to the average training row, on each map’s own scale."
        )

    def figure_uri(self, figure: Pixels) -> str:
        """Encode a waterfall without loss; see `drawing_uri`."""
        return drawing_uri(figure)

    def thumbnail(self, sample: Floats, maps: Sequence[Floats] = ()) -> Pixels:
        """Draw the columns of a row with their values: those with bars, and the first ones if there are few."""
        barred = columns_of([saliency_map[0] for saliency_map in maps], _BARS)
        others = [place for place in range(len(self.spec.features)) if place not in barred]
        return draw_row(self.spec, sample, places=sorted(barred + others[: max(0, _COLUMNS - len(barred))]))

    def overlay(self, sample: Floats, saliency_map: Floats, shift: tuple[float, float]) -> Pixels:
        """Draw the waterfall of a row."""
        return draw_waterfall(bars_of(self.spec, sample, saliency_map[0], _BARS))


def _without(sample: Floats, number: int, share: float) -> Floats:
    """Remove a part of the values, drawn for each row."""
    lost = np.random.default_rng((1, number)).random(sample.shape) < share
    return np.where(lost, np.nan, sample).astype(np.float32)


def _noise(sample: Floats, number: int, spread: Floats) -> Floats:
    """Add normal noise of a spread for each column, `[F]`."""
    noise = np.random.default_rng((2, number)).normal(size=sample.shape)
    return (sample + spread * noise).astype(np.float32)


def _spread(spec: TabularInput, share: float) -> Floats:
    """Return a share of the interquartile range of each column, `[F]`; 0 for categories."""
    quartiles = [np.quantile(column.edges, [0.25, 0.75]) if column.edges else np.zeros(2) for column in spec.features]
    return np.array([share * (high - low) for low, high in quartiles], np.float32)


TABULAR = TabularExport()
