"""Visual styles of runs: one color per group of runs that differ only in their seed, one line style per run."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from kdedge.pipelines.seed_groups import SeedGroup
from kdedge_export.html.palette import RUN_COLORS

__all__ = ["RunStyle", "styles_of_runs"]

_DASHES: tuple[tuple[int, ...], ...] = ((), (7, 4), (2, 3), (10, 3, 2, 3), (14, 5))
_MARKERS = ("o", "s", "^", "D", "v")


@dataclass(frozen=True)
class RunStyle:
    """Color and line style of a run."""

    color: int
    """Index into the colors of data series."""
    style: int
    """Index of the dashes and of the marker."""

    @property
    def color_name(self) -> str:
        """Name of the color in the palette."""
        return RUN_COLORS[self.color]

    @property
    def dashes(self) -> tuple[int, ...]:
        """Lengths of dashes and gaps in CSS pixels; empty for a solid line."""
        return _DASHES[self.style]

    @property
    def marker(self) -> str:
        """Shape of a point, as named by matplotlib."""
        return _MARKERS[self.style]


def styles_of_runs(groups: Sequence[SeedGroup]) -> dict[str, RunStyle]:
    """Assign a style to each run, by name; the first 40 are distinct."""
    styles: dict[str, RunStyle] = {}
    for number, group in enumerate(groups):
        for run in group.runs:
            # Any style in the group's color, then any free combination. Combinations repeat after 40 runs.
            wanted = [RunStyle(number % len(RUN_COLORS), style) for style in range(len(_DASHES))]
            others = [RunStyle(color, style) for style, color in product(range(len(_DASHES)), range(len(RUN_COLORS)))]
            taken = set(styles.values())
            styles[run.name] = next((one for one in [*wanted, *others] if one not in taken), wanted[0])
    return styles
