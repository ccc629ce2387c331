"""Visual styles of runs: one color per group of runs that differ only in their seed, one line style per run."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from kdedge.pipelines.seed_groups import SeedGroup

__all__ = ["RunStyle", "styles_of_runs", "mark", "swatch"]

_COLORS = 8
"""Number of colors, defined for light and dark mode in `comparison.css`."""
_DASHES = ("none", "7 4", "2 3", "10 3 2 3", "14 5")


@dataclass(frozen=True)
class RunStyle:
    """Color and line style of a run."""

    color: int
    style: int

    @property
    def css(self) -> str:
        """CSS variables for the color and dashes, used by `comparison.css`."""
        return f"--run:var(--run-{self.color});--dashes:{_DASHES[self.style]}"


def styles_of_runs(groups: Sequence[SeedGroup]) -> dict[str, RunStyle]:
    """Assign a style to each run, by name; the first 40 are distinct."""
    looks: dict[str, RunStyle] = {}
    for number, group in enumerate(groups):
        for run in group.runs:
            # Any style in the group's color, then any free combination. Combinations repeat after 40 runs.
            wanted = [RunStyle(number % _COLORS, style) for style in range(len(_DASHES))]
            others = [RunStyle(color, style) for style, color in product(range(len(_DASHES)), range(_COLORS))]
            taken = set(looks.values())
            looks[run.name] = next((look for look in [*wanted, *others] if look not in taken), wanted[0])
    return looks


def swatch(look: RunStyle) -> str:
    """Draw a short line sample for legends and tables."""
    line = f'<path class="line" style="{look.css}" d="M1 5H29"/>'
    return f'<svg class="swatch" viewBox="0 0 30 10" aria-hidden="true">{line}</svg>'


def mark(look: RunStyle, x: float, y: float, title: str) -> str:
    """Draw a point of a scatter plot; its shape depends on the line style."""
    r = 5.0
    shapes = (
        f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z",
        f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}Z",
        f"M{x:.1f} {y - r - 1:.1f}l{r + 1} {2 * r}h{-2 * r - 2}Z",
        f"M{x:.1f} {y - r - 1.5:.1f}l{r + 1.5} {r + 1.5}l{-r - 1.5} {r + 1.5}l{-r - 1.5} {-r - 1.5}Z",
        f"M{x:.1f} {y + r + 1:.1f}l{r + 1} {-2 * r}h{-2 * r - 2}Z",
    )
    return f'<path class="mark" style="{look.css}" d="{shapes[look.style]}"><title>{title}</title></path>'
