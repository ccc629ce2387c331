"""Sound files of a dataset, and the windows that long ones are cut into."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from kdedge.data.samples import LoadedSample, StoredSample, file_stamp
from kdedge_runtime.errors import UnreadableSample
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.modalities.audio import AudioInput
from kdedge_runtime.util.files import displayable
from kdedge_runtime.util.sounds import read_sound, require_measured, sound_info

__all__ = ["SoundSample", "window_starts"]

_TOLERANCE = 0.25
"""Share of a window by which a sound may be longer and still be one window, cut at its center."""


@dataclass(frozen=True, slots=True)
class SoundSample(StoredSample):
    """Sound file, or a window of it."""

    path: str
    rate_hz: int | None = None
    """Rate to which the sound is converted; None keeps that of the file."""
    start: int = 0
    """First sample, at this rate."""
    count: int | None = None
    """Number of samples; None for the whole sound."""

    @classmethod
    def below(cls, root: Path, path: Path) -> "SoundSample":
        """Create a sample for `path`, named relative to `root`."""
        return cls(displayable(path.relative_to(root).as_posix()), str(path))

    def __str__(self) -> str:
        return self.path

    @property
    def cut_from(self) -> str | None:
        """Path of the file for a window of it; see `StoredSample.cut_from`."""
        return None if self.count is None else self.path

    def for_input(self, spec: InputSpec) -> "tuple[SoundSample, ...]":
        """Return the windows of the sound at the rate of an input, named `NAME#0`, `NAME#1`, and so on.

        A sound of about the length of a window is one sample with its own name; `AudioInput.preprocess` cuts or pads
        it. The windows of a longer one lie evenly, the first at its start and the last at its end.
        """
        assert isinstance(spec, AudioInput)
        if self.rate_hz is not None:
            return (self,)
        try:
            length = math.ceil(sound_info(self.path).duration_s * spec.rate_hz)
        except UnreadableSample:  # `read` reports it
            return (self,)
        starts = window_starts(length, spec.samples)
        if len(starts) == 1:
            return (replace(self, rate_hz=spec.rate_hz),)
        return tuple(
            SoundSample(f"{self.name}#{number}", self.path, spec.rate_hz, start, spec.samples)
            for number, start in enumerate(starts)
        )

    def read(self) -> LoadedSample:
        """Decode the sound, or its window, as mono PCM; see `StoredSample.read`.

        Raises:
            UnreadableSample: the sound cannot be decoded, or is silent.
        """
        info = sound_info(self.path)
        values = read_sound(self.path, self.rate_hz, self.start, self.count)
        require_measured(values, window=0, name=self.path)
        changes = ["mixed to mono"] if info.channels > 1 else []
        if self.rate_hz not in (None, info.rate_hz):
            changes.append(f"converted from {info.rate_hz:,} Hz")
        return LoadedSample(values, " and ".join(changes) or None)

    def stamp(self) -> str:
        """Return size and modification time with the window; see `StoredSample.stamp`."""
        return f"{file_stamp(self.path)} {self.rate_hz} {self.start} {self.count}"


def window_starts(length: int, window: int) -> tuple[int, ...]:
    """Return the first samples of the windows of a sound, a single 0 for a sound of about their length."""
    if length <= window * (1 + _TOLERANCE):
        return (0,)
    count = math.ceil(length / window - _TOLERANCE)
    return tuple(number * (length - window) // (count - 1) for number in range(count))
