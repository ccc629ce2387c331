"""Report of all unusable samples of a dataset, as one warning."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["SkippedSample", "SkippedSamples"]

_PLURAL: dict[str, str] = {"not an image": "not images"}
_NAMES_SHOWN = 2


class SkippedSample(NamedTuple):
    """Sample or other file, with the reason for skipping or converting it."""

    name: str
    """Name as in `StoredSample.name`."""
    reason: str
    """Reason in a few words, such as `UnreadableSample.fault`."""


@dataclass(frozen=True)
class SkippedSamples:
    """Unusable samples of a dataset, and files that are none; reports can be added."""

    checked: int = 0
    """Number of samples checked, including readable ones; windows of a recording count one each."""
    skipped: tuple[SkippedSample, ...] = ()
    converted: tuple[SkippedSample, ...] = ()
    """Files that are kept after a conversion, such as `grayscale, read as RGB`, with the conversion as the reason."""

    def __add__(self, other: "SkippedSamples") -> "SkippedSamples":
        return SkippedSamples(
            self.checked + other.checked, self.skipped + other.skipped, self.converted + other.converted
        )

    def __bool__(self) -> bool:
        return bool(self.skipped or self.converted)

    def __str__(self) -> str:
        """Format as one line: `2 of 90 samples: 1 truncated (a.jpg), skipped; 1 grayscale, read as RGB`."""
        if not self:
            return f"{self.checked:,} samples, all readable"
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.skipped:
            by_reason.setdefault(reason, []).append(name)
        counts = [
            f"{len(names):,} {_PLURAL.get(reason, reason) if len(names) > 1 else reason} ({_shortened(names)})"
            for reason, names in by_reason.items()
        ]
        parts = [f"{', '.join(counts)}, skipped"] if counts else []
        conversions = Counter(reason for _, reason in self.converted)
        parts += [f"{count:,} {conversion}" for conversion, count in conversions.items()]
        return f"{len(self.skipped) + len(self.converted):,} of {self.checked:,} samples: {'; '.join(parts)}"


def _shortened(names: Iterable[str]) -> str:
    files = sorted(name.rpartition("/")[2] for name in names)
    return ", ".join(files[:_NAMES_SHOWN]) + (", …" if len(files) > _NAMES_SHOWN else "")
