"""Exact intervals of Poisson counts, and recordings without any time."""

from functools import partial
from pathlib import Path
from unittest.mock import sentinel

import numpy as np
import pytest
import soundfile
from scipy.stats import chi2

from kdedge_export.metrics.false_alarms import count_false_alarms, poisson_interval
from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.audio import SoundWindows, open_audio_source


@pytest.mark.parametrize("count", [0, 1, 2, 7, 40, 300])
def test_interval_is_exact(count: int) -> None:
    low, high = poisson_interval(count)
    assert low == pytest.approx(0 if count == 0 else chi2.ppf(0.025, 2 * count) / 2, abs=1e-9)
    assert high == pytest.approx(chi2.ppf(0.975, 2 * count + 2) / 2, rel=1e-9)


def test_recordings_without_a_readable_window_are_an_error(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "muted.wav", np.zeros(8_000), 8_000)
    source = partial(open_audio_source, SoundWindows(8_000, 8_000, 0.5), str(tmp_path))
    with pytest.raises(SourceError, match="no time"):
        count_false_alarms("fp32", sentinel.model, source)
