"""Counts with their nouns, and sizes of maps, as texts."""

__all__ = ["counted", "grid_text"]


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Format a count with its noun, such as `1 frame`, `1,189 frames` or `2 classes`.

    Args:
        count: number of things.
        noun: noun in the singular.
        plural: noun in the plural; None appends an `s`.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def grid_text(rows: int | None, columns: int | None) -> str:
    """Format the size of a map as rows × columns, such as `7 × 7`, with a question mark for a symbolic size."""
    return f"{rows or '?'} × {columns or '?'}"
