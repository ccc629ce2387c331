"""Choose the network of an audio model and its input: rate, window, features and map resolution."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from kdedge.config.defaults import requested_stride_factor, stride_factor
from kdedge.config.train_config import TrainConfig
from kdedge.data import DatasetIndex, Split
from kdedge.data.decoding import decode
from kdedge.data.sound_samples import SoundSample
from kdedge.modalities.audio import SPEECH_EMBEDDING
from kdedge.modalities.audio_defaults import MAX_RATE_HZ, MEL_BANDS, make_audio_input
from kdedge.models.model_names import canonical_name
from kdedge.models.model_registry import build_model, make_spec
from kdedge.models.model_spec import ModelSpec
from kdedge.models.speech_embedding import speech_embedding_input
from kdedge.models.stem import output_strides
from kdedge.models.teacher_source import LoadedTeacher
from kdedge.models.trained_model import TrainedModel
from kdedge.training.teachers.teacher_loading import init_source
from kdedge_runtime.errors import DataError, UnreadableSample, UsageError
from kdedge_runtime.modalities.audio import AudioInput
from kdedge_runtime.util.sounds import MIN_SHARE, SoundInfo, sound_info

__all__ = ["choose_audio_network"]

WINDOWS_S = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0)
"""Default windows in seconds; the shortest that covers most recordings is chosen."""
_COVERED = 0.9
_LONG_S = 3.0
"""Window of recordings that are longer than all default windows, in seconds."""
_EQUAL_S = 0.02
"""Difference of windows that are equal up to the rounding to whole frames, in seconds."""
_INSPECTED = 200
"""Number of recordings whose headers and features are inspected."""


def choose_audio_network(
    request: TrainConfig, teachers: Sequence[LoadedTeacher], dataset: DatasetIndex
) -> tuple[ModelSpec, AudioInput]:
    """Choose the model and its input: that of the teacher, or rate, window and statistics of the recordings.

    Args:
        request: training options; `size` is the number of mel bands.
        teachers: teachers, whose rate and window the student shares.
        dataset: dataset index.

    Raises:
        DataError: none of the recordings can be read.
        UsageError: the window is invalid or differs from that of a teacher, or flips are requested.
    """
    if request.flip:
        raise UsageError("--flip mirrors images, but sounds have a direction. Remove it.")
    name = request.model if request.model == SPEECH_EMBEDDING else canonical_name(request.model)
    spec_input = _input(request, teachers, dataset.train.thinned(_INSPECTED))
    _require_equal_windows(teachers, spec_input)
    fresh_stem = init_source(teachers).spec.fresh_stem if request.init == "teacher" else not request.is_pretrained
    if name == SPEECH_EMBEDDING:
        return ModelSpec(name, len(dataset.labels), fresh_stem=False), spec_input
    plain = make_spec(name, len(dataset.labels), fresh_stem=fresh_stem)
    size = (spec_input.mel_bands, spec_input.frames)
    strides = output_strides(build_model(plain, size), size, fresh=fresh_stem)
    if request.output_stride is None:
        factor = stride_factor(min(size), strides)
    else:
        factor = requested_stride_factor(request.output_stride, strides)
    return replace(plain, stride_factor=factor), spec_input


def _input(request: TrainConfig, teachers: Sequence[LoadedTeacher], some: Split) -> AudioInput:
    """Return the input: the window of the teacher or the recordings, and the lower rate of both.

    The student of a model file has its input.
    """
    infos = _headers(some)
    rate = min(MAX_RATE_HZ, Counter(info.rate_hz for info in infos).most_common(1)[0][0])
    if teachers:
        teacher = teachers[0].input
        assert isinstance(teacher, AudioInput)
        if request.window is not None and abs(_seconds(request.window, rate) - teacher.window_s) > _EQUAL_S:
            raise UsageError(
                f"--window {request.window} differs from the window of the teacher, {teacher.window_s:g} s, which the "
                "student shares. Remove it, or train a teacher with this window."
            )
        if not isinstance(teachers[0].model, TrainedModel):  # a file takes its own rate only
            return _measured(replace(teacher, mel_bands=request.size or teacher.mel_bands), some)
        rate, window_s = min(rate, teacher.rate_hz), teacher.window_s
    else:
        window_s = _window_s(request.window, rate, infos)
    if request.model == SPEECH_EMBEDDING:
        if request.size is not None or request.output_stride is not None:
            raise UsageError(f"{SPEECH_EMBEDDING} has fixed features and layers. Remove --size and --output-stride.")
        return speech_embedding_input(window_s)
    return _measured(make_audio_input(rate, window_s, mel_bands=request.size or MEL_BANDS), some)


def _require_equal_windows(teachers: Sequence[LoadedTeacher], spec: AudioInput) -> None:
    """Raise if a teacher has windows of another duration, which would be stretched in time on the way to it."""
    for teacher in teachers:
        assert isinstance(teacher.input, AudioInput)
        if abs(teacher.input.window_s - spec.window_s) > _EQUAL_S:
            raise UsageError(
                f"The teacher {teacher.name} takes windows of {teacher.input.window_s:g} s, but the student of "
                f"{spec.window_s:g} s. Expected equal windows: train the teacher with --window {spec.window_s:g}s."
            )


def _window_s(requested: str | None, rate_hz: int, infos: Sequence[SoundInfo]) -> float:
    if requested is not None:
        return _seconds(requested, rate_hz)
    durations = sorted(info.duration_s for info in infos)
    longest = durations[int(_COVERED * (len(durations) - 1))]
    return next((window for window in WINDOWS_S if longest <= window * 1.01), _LONG_S)


def _seconds(length: str, rate_hz: int) -> float:
    """Parse a time such as `1s` or `500ms`, or a number of samples."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)?", length)
    if match is None or not float(match[1]):
        raise UsageError(f"--window {length} is not a length. Expected a time such as 1s or 500ms.")
    return float(match[1]) / {"s": 1, "ms": 1000, None: rate_hz}[match[2]]


def _headers(split: Split) -> list[SoundInfo]:
    infos = []
    for sample in split.samples:
        assert isinstance(sample, SoundSample)
        try:
            infos.append(sound_info(sample.path))
        except UnreadableSample:  # `decode` reports it
            continue
    if not infos:
        raise DataError(f"None of {len(split):,} sound files can be read, such as {split.samples[0]}.")
    return infos


def _measured(spec: AudioInput, split: Split) -> AudioInput:
    """Return the input with mean and standard deviation of the features of some recordings."""
    decoded = decode(split, spec)
    if not len(decoded.samples):
        raise DataError(
            f"None of the first {len(split):,} sounds is usable ({decoded.problems}). Expected sounds that are not "
            f"silent, with at least {MIN_SHARE:.0%} of the window of {spec.window_s:g} s."
        )
    energies = [spec.features(sound) for sound in decoded.samples]
    mean = sum(float(each.mean()) for each in energies) / len(energies)
    variance = sum(float(((each - mean) ** 2).mean()) for each in energies) / len(energies)
    return replace(spec, mean=round(mean, 4), std=round(math.sqrt(variance), 4))
