"""Axes and grid of a plot as inline SVG."""

from dataclasses import dataclass

from kdedge.reports.pages.axis import Axis

__all__ = ["Plot"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 10, 34
"""Margins around the axes in px; the left margin fits the label 0.9995."""


@dataclass(frozen=True)
class Plot:
    """Pair of axes with the size of the drawing in px."""

    x: Axis
    y: Axis
    width: int
    height: int

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the position of a point in px from the left and top."""
        return (
            _LEFT + (self.width - _LEFT - _RIGHT) * self.x.share(x),
            self.height - _BOTTOM - (self.height - _TOP - _BOTTOM) * self.y.share(y),
        )

    def drawn(self, content: str, title: str, x_title: str) -> str:
        """Render the plot as SVG.

        Args:
            content: SVG elements inside the axes.
            title: Accessible label for screen readers.
            x_title: Label of the horizontal axis.
        """
        parts = []
        for tick in self.y.ticks:
            _, at = self.place(self.x.low, tick)
            parts.append(f'<path d="M{_LEFT} {at:.1f}H{self.width - _RIGHT}"/>')
            parts.append(f'<text x="{_LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
        for tick in self.x.ticks:
            at, base = self.place(tick, self.y.low)
            parts.append(f'<text x="{at:.1f}" y="{base + 16:.1f}" text-anchor="middle">{_number(tick)}</text>')
        middle, _ = self.place((self.x.low + self.x.high) / 2, self.y.low)
        parts.append(f'<text x="{middle:.1f}" y="{self.height - 3}" text-anchor="middle">{x_title}</text>')
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{title}">'
            f'<g class="ground">{"".join(parts)}</g>{content}</svg>'
        )


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "−")
