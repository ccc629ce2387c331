"""Counts with their nouns, values, and sizes of maps, as texts."""

__all__ = ["counted", "grid_text", "number_text"]


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Format a count with its noun, such as `1 frame`, `1,189 frames` or `2 classes`.

    Args:
        count: number of things.
        noun: noun in the singular.
        plural: noun in the plural; None appends an `s`.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def number_text(value: float) -> str:
    """Format a value with four significant digits, or as an integer from 1,000 to a billion."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"


def grid_text(rows: int | None, columns: int | None) -> str:
    """Format the size of a map as rows × columns, such as `7 × 7`, with a question mark for a symbolic size."""
    return f"{rows or '?'} × {columns or '?'}"
