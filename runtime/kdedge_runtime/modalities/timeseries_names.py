"""Names of the channels of a series that has none."""

__all__ = ["unnamed_channels"]


def unnamed_channels(count: int) -> tuple[str, ...]:
    """Return the names of channels without names: `channel 1` and so on."""
    return tuple(f"channel {number}" for number in range(1, count + 1))
