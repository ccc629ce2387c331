"""Report of all unusable files of a dataset, as one warning."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from kdedge_runtime.util.images import Fault

__all__ = ["Problems", "Reason", "Skipped"]

Reason: TypeAlias = Fault | Literal["of unknown type", "outside a class folder", "without a class"]

_PLURAL: dict[Reason, str] = {"not an image": "not images"}
_NAMES_SHOWN = 2


class Skipped(NamedTuple):
    """Skipped file with the reason."""

    name: str
    """Name as in `Sample.name`."""
    reason: Reason


@dataclass(frozen=True)
class Problems:
    """Unusable files of a dataset; reports can be added."""

    checked: int = 0
    """Number of files checked, including readable ones."""
    skipped: tuple[Skipped, ...] = ()
    grey: tuple[str, ...] = ()
    """Names of single-channel grayscale images, which are kept with R = G = B."""

    def __add__(self, other: "Problems") -> "Problems":
        return Problems(self.checked + other.checked, self.skipped + other.skipped, self.grey + other.grey)

    def __bool__(self) -> bool:
        return bool(self.skipped or self.grey)

    def __str__(self) -> str:
        """Format as one line: `2 of 90 files: 1 truncated (a.jpg), skipped; 1 grayscale, read as RGB`."""
        if not self:
            return f"{self.checked:,} files, all readable"
        by_reason: dict[Reason, list[str]] = {}
        for name, reason in self.skipped:
            by_reason.setdefault(reason, []).append(name)
        counts = [
            f"{len(names):,} {_PLURAL.get(reason, reason) if len(names) > 1 else reason} ({_shortened(names)})"
            for reason, names in by_reason.items()
        ]
        parts = [f"{', '.join(counts)}, skipped"] if counts else []
        if self.grey:
            parts.append(f"{len(self.grey):,} grayscale, read as RGB")
        return f"{len(self.skipped) + len(self.grey):,} of {self.checked:,} files: {'; '.join(parts)}"


def _shortened(names: Iterable[str]) -> str:
    files = sorted(name.rpartition("/")[2] for name in names)
    return ", ".join(files[:_NAMES_SHOWN]) + (", …" if len(files) > _NAMES_SHOWN else "")
