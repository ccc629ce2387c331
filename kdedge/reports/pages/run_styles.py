"""Visual styles of runs: one color per group of runs that differ only in their seed, one line style per run."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from kdedge.pipelines.seed_groups import SeedGroup

__all__ = ["Look", "looks_of", "mark", "swatch"]

_COLOURS = 8
"""Number of colors, defined for light and dark mode in `comparison.css`."""
_DASHES = ("none", "7 4", "2 3", "10 3 2 3", "14 5")


@dataclass(frozen=True)
class Look:
    """Color and line style of a run."""

    colour: int
    style: int

    @property
    def css(self) -> str:
        """CSS variables for the color and dashes, used by `comparison.css`."""
        return f"--run:var(--run-{self.colour});--dashes:{_DASHES[self.style]}"


def looks_of(groups: Sequence[SeedGroup]) -> dict[str, Look]:
    """Assign a style to each run, by name; the first 40 are distinct."""
    looks: dict[str, Look] = {}
    for number, group in enumerate(groups):
        for run in group.runs:
            # Any style in the group's color, then any free combination. Combinations repeat after 40 runs.
            wanted = [Look(number % _COLOURS, style) for style in range(len(_DASHES))]
            others = [Look(colour, style) for style, colour in product(range(len(_DASHES)), range(_COLOURS))]
            taken = set(looks.values())
            looks[run.name] = next((look for look in [*wanted, *others] if look not in taken), wanted[0])
    return looks


def swatch(look: Look) -> str:
    """Draw a short line sample for legends and tables."""
    line = f'<path class="line" style="{look.css}" d="M1 5H29"/>'
    return f'<svg class="swatch" viewBox="0 0 30 10" aria-hidden="true">{line}</svg>'


def mark(look: Look, x: float, y: float, title: str) -> str:
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
