"""Background recordings: damaged files are reported."""

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kdedge.data.readers.background_sounds import load_background
from kdedge.modalities.audio_defaults import make_audio_input


def test_damaged_recordings_are_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(tmp_path / "fan.wav", np.random.default_rng(0).normal(0, 0.1, 12_000), 8_000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with caplog.at_level(logging.WARNING):
        assert len(load_background(str(tmp_path), make_audio_input(8_000, 1.0))) == 12_000
    assert "skipped 1 background" in caplog.text and "broken.wav" in caplog.text
