"""HTML tables of results."""

from collections.abc import Iterable, Sequence

from kdedge_export.html.text import correlation, escape, percent
from kdedge_export.metrics.confidence import Interval

__all__ = ["correlation_cell", "grid", "percent_cell", "with_interval"]


def grid(heads: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Render a horizontally scrolling table.

    Args:
        heads: title and description of each column.
        rows: HTML of the cells; the first one is the row header.
        kind: CSS class of the table.
    """
    head = "".join(f'<th scope="col" title="{escape(meaning)}">{title}</th>' for title, meaning in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{position}</td>" for position in others) + "</tr>"
        for first, *others in rows
    )
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def with_interval(figure: str, low: str, high: str) -> str:
    """Render a value with its 95 % interval below it."""
    return f'{figure}<br><span class="ci">{low} – {high}</span>'


def percent_cell(share: float | None, interval: Interval | None, digits: int = 1) -> str:
    """Render a fraction in [0, 1] in percent, with its interval."""
    if share is None or interval is None:
        return percent(share, digits)
    ends = (f"{100 * end:.{digits}f}" for end in (interval.low, interval.high))
    return with_interval(percent(share, digits), *ends)


def correlation_cell(value: float | None, interval: Interval | None) -> str:
    """Render a correlation, an overlap, an area or a value in nats, with its interval."""
    if value is None or interval is None:
        return correlation(value)
    return with_interval(correlation(value), correlation(interval.low), correlation(interval.high))
