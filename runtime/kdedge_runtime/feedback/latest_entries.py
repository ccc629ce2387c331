"""Latest entry of each sample, which decides what is exported."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from kdedge_runtime.drawing.heatmap import Box
from kdedge_runtime.errors import DataError
from kdedge_runtime.feedback.verdict import Verdict

__all__ = ["FeedbackSummary", "LatestEntries"]


@dataclass(frozen=True)
class FeedbackSummary:
    """Summary of an export."""

    samples: dict[str, int]
    """Number of labeled samples that were written, by label, sorted."""
    boxes: int
    unknown: int
    """Number of samples of none of the classes that were written."""
    excluded: int
    """Number of samples that were not written: marked as wrong without another label, or unknown."""
    superseded: int
    """Entries replaced by later feedback on the same sample."""


@dataclass(frozen=True)
class LatestEntries:
    """Samples to export by the SHA-256 of their content, by their latest entries."""

    labels: dict[bytes, str]
    """Label of each labeled sample; empty if labels are not exported."""
    unknown: frozenset[bytes]
    """Samples of none of the classes; empty if they are not exported."""
    boxes: dict[bytes, Box]
    """Bounding box of the object in each sample that has one."""
    excluded: int
    superseded: int

    @classmethod
    def of(cls, verdicts: Iterable[Verdict], *, labels: bool, unknown: bool) -> Self:
        """Find the samples to export.

        Args:
            verdicts: entries, oldest first.
            labels: True to export samples with a label.
            unknown: True to export samples of none of the classes.

        Raises:
            DataError: there are no samples of a requested kind.
        """
        last: dict[bytes, tuple[str | None, str, Box | None]] = {}
        count = 0
        for verdict in verdicts:
            last[cls.digest(verdict)] = (verdict.true_label, verdict.judgment, verdict.box)
            count += 1
        labeled = {digest: label for digest, (label, _, _) in last.items() if label is not None} if labels else {}
        strange = frozenset(digest for digest, (_, judgment, _) in last.items() if unknown and judgment == "unknown")
        if labels and not labeled:
            raise DataError(
                f"None of the {count:,} feedback entries gives a label. Expected predictions marked as correct or "
                "corrected with another label."
            )
        if unknown and not strange:
            raise DataError(
                f"None of the {len(last):,} samples in the feedback is unknown. Expected samples recorded with "
                "--record-unknown."
            )
        boxes = {digest: box for digest, (_, _, box) in last.items() if digest in labeled and box is not None}
        return cls(labeled, strange, boxes, len(last) - len(labeled) - len(strange), count - len(last))

    @staticmethod
    def digest(verdict: Verdict) -> bytes:
        """Return the SHA-256 of a sample's content."""
        return hashlib.sha256(verdict.content).digest()

    @property
    def summary(self) -> FeedbackSummary:
        """Summary of the export of all these samples."""
        samples = dict(sorted(Counter(self.labels.values()).items()))
        return FeedbackSummary(samples, len(self.boxes), len(self.unknown), self.excluded, self.superseded)
