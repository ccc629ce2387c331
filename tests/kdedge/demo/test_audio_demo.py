"""Data of the demonstration on sounds."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from kdedge_runtime.util.sounds import read_sound


def test_sounds_are_written_without_soundfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, "soundfile", None)
        missing.delitem(sys.modules, "kdedge.demo.audio_demo", raising=False)
        demo = import_module("kdedge.demo.audio_demo")
        masks = demo.AUDIO.write(tmp_path, 1, 1, 0)
    assert len(masks) == len(demo.AUDIO.labels)
    drawn = demo.render_sound("beep", np.random.default_rng((0, False, 0))).values
    assert np.abs(read_sound(tmp_path / "train" / "beep" / "0000.wav") - drawn).max() < 1e-4
