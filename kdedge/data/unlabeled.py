"""Selection of unlabeled samples: without duplicates, near-duplicates of footage, and samples of held-out splits.

Samples are compared by the SHA-256 of their decoded values, so a renamed or losslessly converted copy is found.
Near-duplicates are compared by a perceptual hash of the modality.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from kdedge.data.dataset_index import fingerprint_of
from kdedge.data.samples import StoredSample
from kdedge.data.skipped_samples import SkippedSample, SkippedSamples
from kdedge.data.splits import Split
from kdedge_runtime.errors import DataError, UnreadableSample
from kdedge_runtime.modalities import Sample
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["NEAR_BITS", "UnlabeledSelection", "UnlabeledSource", "select_unlabeled"]

NEAR_BITS = 6
"""Largest distance of the hashes of near-duplicates, in bits of 64.

JPEG, noise and brightness change a frame's hash by at most 4 bits. Of the pairs of different GTSRB images one in 10,000
is as close, and none of Tiny-ImageNet.
"""
_RECENT = 16
"""Number of kept frames that a new one is compared with."""
_CHUNK = 64
_STEP = "comparing samples"

PerceptualHash = Callable[[Sample], int | None]
_Content = tuple[bytes, int | None]


@dataclass(frozen=True)
class UnlabeledSource:
    """Unlabeled samples at one location."""

    location: str
    """Location, with absolute paths."""
    samples: Iterator[StoredSample | SkippedSample]
    """Samples in order, and what cannot be read; iterable once."""
    expected: int
    """Approximate number of samples, for the progress."""
    is_footage: bool
    """True for consecutive frames, in which near-duplicates are dropped."""


@dataclass(frozen=True)
class UnlabeledSelection:
    """Selected samples, and the number of samples that were not selected."""

    samples: tuple[StoredSample, ...]
    found: int
    """Number of readable samples."""
    duplicates: int
    """Number of samples with the content of another unlabeled or labeled training sample."""
    near_duplicates: int
    """Number of frames that hardly differ from a recent one."""
    held_out: int
    """Number of samples with the content of a validation or test sample."""
    problems: SkippedSamples
    fingerprint: str
    """SHA-256 over names and contents, hexadecimal."""

    @property
    def summary(self) -> str:
        """Description of the selection, such as `90 of 100: 6 duplicates, 4 held-out samples dropped`."""
        dropped = [
            f"{count:,} {what}"
            for count, what in (
                (self.duplicates, "duplicates"),
                (self.near_duplicates, "near-duplicate frames"),
                (self.held_out, "equal to held-out samples"),
            )
            if count
        ]
        text = f"{len(self.samples):,} of {self.found:,}"
        return f"{text}; dropped: {', '.join(dropped)}" if dropped else f"{text}, no duplicates"


def select_unlabeled(
    sources: Sequence[UnlabeledSource],
    perceptual_hash: PerceptualHash,
    *,
    train: Split,
    held_out: Sequence[Split],
    progress: ProgressCallback = no_progress,
) -> UnlabeledSelection:
    """Read every sample once, and select those that add something; time and memory grow linearly.

    Args:
        sources: locations with their samples.
        perceptual_hash: hash of decoded samples, 64 bits, or None for samples without one.
        train: labeled training samples, whose copies are duplicates.
        held_out: validation and test splits, whose copies are never selected.
        progress: called after every chunk of samples.

    Raises:
        DataError: A location has no readable sample, or no sample is left.
    """
    counted = _Progress(progress, len(train) + sum(map(len, held_out)) + sum(one.expected for one in sources))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:

        def contents(
            samples: Iterable[StoredSample | SkippedSample], hasher: PerceptualHash | None
        ) -> Iterator[tuple[StoredSample | SkippedSample, _Content | SkippedSample]]:
            iterator = iter(samples)
            while chunk := list(islice(iterator, _CHUNK)):
                yield from zip(chunk, pool.map(lambda sample: _content(sample, hasher), chunk), strict=True)
                counted.add(len(chunk))

        def digests(split: Split) -> set[bytes]:
            found = contents(split.samples, None)
            return {content[0] for _, content in found if not isinstance(content, SkippedSample)}

        reserved = set[bytes]().union(*map(digests, held_out))
        seen = digests(train) - reserved
        kept: list[tuple[StoredSample, bytes]] = []
        skipped: list[SkippedSample] = []
        readable = dict.fromkeys((source.location for source in sources), 0)
        found = equal = near = aside = 0
        for source in sources:
            recent = deque[int](maxlen=_RECENT)
            hasher = perceptual_hash if source.is_footage else None
            for sample, content in contents(source.samples, hasher):
                if isinstance(content, SkippedSample):
                    skipped.append(content)
                    continue
                assert not isinstance(sample, SkippedSample), "it has no content"
                digest, hashed = content
                found += 1
                readable[source.location] += 1
                if digest in reserved:
                    aside += 1
                elif digest in seen:
                    equal += 1
                elif hashed is not None and any((hashed ^ other).bit_count() <= NEAR_BITS for other in recent):
                    near += 1
                else:
                    kept.append((sample, digest))
                    if hashed is not None:
                        recent.append(hashed)
                seen.add(digest)
    for location, count in readable.items():
        if not count:
            raise DataError(f"{location} has no readable unlabeled samples{_because(skipped)}. Replace the files.")
    counted.finish()
    if not kept:
        raise DataError(
            f"None of {found:,} unlabeled samples adds anything: {equal:,} are duplicates, and {aside:,} equal "
            "validation or test samples. Expected samples that the dataset does not have."
        )
    return UnlabeledSelection(
        samples=tuple(sample for sample, _ in kept),
        found=found,
        duplicates=equal,
        near_duplicates=near,
        held_out=aside,
        problems=SkippedSamples(found + len(skipped), tuple(skipped)),
        fingerprint=fingerprint_of(f"{sample.name}\0{digest.hex()}" for sample, digest in kept),
    )


def _content(sample: StoredSample | SkippedSample, hasher: PerceptualHash | None) -> _Content | SkippedSample:
    """Return the SHA-256 of a sample's values and its perceptual hash, or why it cannot be read."""
    if isinstance(sample, SkippedSample):
        return sample
    try:
        values = sample.read().values
    except UnreadableSample as error:
        return SkippedSample(sample.name, error.fault)
    return sample.digest(values), None if hasher is None else hasher(values)


def _because(skipped: Sequence[SkippedSample]) -> str:
    return f" ({SkippedSamples(len(skipped), tuple(skipped))})" if skipped else ""


class _Progress:
    """Progress over all splits and sources; their total is approximate until the end."""

    def __init__(self, callback: ProgressCallback, total: int) -> None:
        self._callback, self._total, self._done = callback, total, 0

    def add(self, count: int) -> None:
        """Count samples; the step is not complete before `finish`."""
        self._done = min(self._done + count, max(0, self._total - 1))
        self._callback(_STEP, self._done, self._total)

    def finish(self) -> None:
        """Complete the step."""
        self._callback(_STEP, self._total, self._total)
