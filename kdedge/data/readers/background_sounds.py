"""Background recordings: sounds of no class, mixed into training samples and counted in false alarms."""

import logging
from pathlib import Path

import numpy as np

from kdedge_runtime.errors import DataError, UnreadableSample
from kdedge_runtime.modalities.audio import AudioInput
from kdedge_runtime.util.arrays import Floats
from kdedge_runtime.util.images import files_below
from kdedge_runtime.util.sounds import is_sound_file, read_sound

__all__ = ["load_background"]

_log = logging.getLogger(__name__)


def load_background(folder: str, spec: AudioInput) -> Floats:
    """Decode all sounds below a folder, one after another, float32 `[B]` at the rate of the input.

    Unreadable files are skipped, and a warning is logged.

    Raises:
        DataError: the folder has no readable sounds, or they are shorter than a window together.
    """
    sounds: list[Floats] = []
    problems: list[str] = []
    for path in sorted(filter(is_sound_file, files_below(Path(folder)))):
        try:
            sounds.append(read_sound(path, spec.rate_hz))
        except UnreadableSample as error:
            problems.append(str(error))
    length = sum(map(len, sounds))
    if length <= spec.samples:
        reason = f" ({problems[0]})" if problems else ""
        raise DataError(
            f"The background recordings in {folder} have {length / spec.rate_hz:.1f} s in {len(sounds)} readable "
            f"files{reason}. Expected a folder with more than {spec.window_s:g} s of sounds."
        )
    if problems:
        _log.warning("skipped %d background recordings, such as: %s", len(problems), problems[0])
    return np.concatenate(sounds)
