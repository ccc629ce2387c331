"""Files of the page for sounds: windows, features and drawings equal to Python."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import asdict
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from browser import browser, open_page, served
from PIL import Image
from sound_files import noise, tone
from tone_model import TONE_SPEC

from kdedge_runtime.drawing.colormap import heat_ramp
from kdedge_runtime.drawing.heatmap import UNMEASURED, MapDisplay, display_heat, peak
from kdedge_runtime.drawing.spectrogram import draw_spectrogram, time_marks
from kdedge_runtime.errors import UnreadableSample
from kdedge_runtime.modalities.audio import AudioInput
from kdedge_runtime.model import Model
from kdedge_runtime.sources.audio import SoundWindows
from kdedge_runtime.sources.audio.windows import sliding_windows
from kdedge_runtime.util.sounds import Resampler

RATE_HZ = TONE_SPEC.rate_hz
SPEECH_SPEC = AudioInput(
    rate_hz=16_000,
    samples=16_000,
    n_fft=1_000,
    win_length=512,
    frame_hop=320,
    mel_bands=40,
    fmin_hz=60.0,
    fmax_hz=7_600.0,
    log_offset=1e-5,
    least_peak=1.0,
    mean=0.0,
    std=1.0,
)


@pytest.fixture(scope="module")
def evaluate(tone_model: Model) -> Iterator[Callable[[str, Any], Any]]:
    """Function that evaluates JavaScript of the page's files."""
    with browser() as opened, served(tone_model) as url:
        page = open_page(opened, url)
        yield lambda code, given: page.evaluate(code, given)


# ---- preprocessing


@pytest.mark.parametrize("length", [4_000, 400, 401, 3_999, 4_001, 9_002])
def test_preprocessing_is_bit_exact_with_python(evaluate: Callable[[str, Any], Any], length: int) -> None:
    sound = noise(length, length)
    fitted = evaluate(
        """async ([sound, spec]) => {
            const { fitSound } = await import("/sound_windows.js");
            return Array.from(fitSound(Float32Array.from(sound), spec));
        }""",
        [sound.tolist(), asdict(TONE_SPEC)],
    )
    np.testing.assert_array_equal(np.array(fitted, np.float32), TONE_SPEC.preprocess(sound))


@pytest.mark.parametrize(
    ("sound", "words"),
    [(np.zeros(4_000), "only zeros"), (np.zeros(0), "only zeros"), (np.ones(399), "399 samples, but the window 4000")],
)
def test_sounds_without_measurement_are_refused_as_in_python(
    evaluate: Callable[[str, Any], Any], sound: np.ndarray, words: str
) -> None:
    with pytest.raises(UnreadableSample):
        TONE_SPEC.preprocess(sound.astype(np.float32))
    refused = evaluate(
        """async ([sound, spec]) => {
            const { fitSound } = await import("/sound_windows.js");
            try { fitSound(Float32Array.from(sound), spec); } catch (error) { return error.message; }
        }""",
        [sound.tolist(), asdict(TONE_SPEC)],
    )
    assert words in refused


@pytest.mark.parametrize("length", [1, 399, 3_999, 4_000, 4_001, 6_000, 6_001, 21_234])
def test_windows_of_a_file_are_those_of_python(evaluate: Callable[[str, Any], Any], length: int) -> None:
    sound = noise(length)
    windows = SoundWindows(RATE_HZ, TONE_SPEC.samples, TONE_SPEC.hop_s)
    starts = evaluate(
        """async ([count, spec]) => (await import("/sound_windows.js")).windowStarts(count, spec)""",
        [length, asdict(TONE_SPEC)],
    )
    assert starts == [start for start, _ in sliding_windows([sound], windows)]


@pytest.mark.parametrize("hertz", [200.0, 1_500.0, 3_300.0])
@pytest.mark.parametrize(("from_hz", "to_hz"), [(48_000, 8_000), (44_100, 16_000), (8_000, 16_000)])
def test_rate_is_converted_as_in_python(
    evaluate: Callable[[str, Any], Any], from_hz: int, to_hz: int, hertz: float
) -> None:
    pytest.importorskip("soxr")
    sound = tone(0.3, from_hz, hertz)
    whole, blocks = evaluate(
        """async ([sound, from, to]) => {
            const { Resampler, resampled } = await import("/resampler.js");
            const resampler = new Resampler(from, to), blocks = [];
            for (let at = 0; at < sound.length; at += 777) {
                blocks.push(...resampler.convert(Float32Array.from(sound.slice(at, at + 777))));
            }
            return [Array.from(resampled(Float32Array.from(sound), from, to)), blocks];
        }""",
        [sound.tolist(), from_hz, to_hz],
    )
    expected = Resampler(from_hz, to_hz).convert(sound, last=True)
    inside = slice(to_hz // 20, -to_hz // 20)
    np.testing.assert_allclose(whole[inside], expected[inside], atol=1e-3)
    assert len(whole) == round(0.3 * to_hz)
    np.testing.assert_array_equal(blocks, whole[: len(blocks)])
    assert len(whole) - len(blocks) < 0.01 * to_hz, "delay"


@pytest.mark.parametrize(("hertz", "kept"), [(3_500, 1.0), (5_000, 0.0)])
def test_frequencies_beyond_the_rate_are_removed(evaluate: Callable[[str, Any], Any], hertz: int, kept: float) -> None:
    """Browsers weaken the one and fold the other back into the band."""
    converted = evaluate(
        """async (sound) => {
            const { resampled } = await import("/resampler.js");
            return Array.from(resampled(Float32Array.from(sound), 44100, 8000));
        }""",
        tone(0.5, 44_100, hertz).tolist(),
    )
    assert np.abs(converted[400:-400]).max() == pytest.approx(0.5 * kept, abs=5e-5)


def _live_windows(
    evaluate: Callable[[str, Any], Any], blocks: list[Any], from_hz: int = RATE_HZ, buffer_ms: int = 0
) -> list[Any]:
    """Return the windows after each block, with the time of their last sample; a block is samples and their time."""
    taken: list[Any] = evaluate(
        """async ([blocks, spec, rate, bufferMs]) => {
            const { LiveWindows } = await import("/sound_windows.js");
            const windows = new LiveWindows(spec, rate, bufferMs);
            return blocks.map(([samples, at]) => {
                windows.add(Float32Array.from(samples), at);
                const window = windows.take();
                return window && [Array.from(window.sample), window.capturedAt];
            });
        }""",
        [blocks, asdict(TONE_SPEC), from_hz, buffer_ms],
    )
    return taken


@pytest.mark.parametrize("size", [160, 2_000, 7_000])
def test_microphone_windows_are_the_newest_complete_ones(evaluate: Callable[[str, Any], Any], size: int) -> None:
    sound = noise(21_000)
    blocks = [[sound[at : at + size].tolist(), (at + size) / 8] for at in range(0, len(sound), size)]
    found = [window for window in _live_windows(evaluate, blocks) if window]
    newest = {-(-end // size): end for end in range(4_000, 21_001, 2_000)}  # of those completed by the same block
    assert len(found) == len(newest)
    for (window, at), end in zip(found, newest.values(), strict=True):
        np.testing.assert_array_equal(np.array(window, np.float32), sound[end - 4_000 : end])
        assert at == pytest.approx(end / 8)


def test_windows_have_no_gaps(evaluate: Callable[[str, Any], Any]) -> None:
    """After lost samples the next window is complete again; blocks that are late without a loss change nothing."""
    sound = noise(16_000)
    starts = range(0, 16_000, 400)
    times = [(start + 400) / 8 + (90 if start == 4_000 else 300 if start >= 6_000 else 0) for start in starts]
    blocks = [[sound[start : start + 400].tolist(), at] for start, at in zip(starts, times, strict=True)]
    found = [window for window in _live_windows(evaluate, blocks) if window]
    ends = [4_000, 6_000, 10_000, 12_000, 14_000, 16_000]  # none over the loss at 6,000
    assert [at for _, at in found] == [times[end // 400 - 1] for end in ends]
    for (window, _), end in zip(found, ends, strict=True):
        np.testing.assert_array_equal(np.array(window, np.float32), sound[end - 4_000 : end])


def _capture_times(count: int, lost_ms: float, every: int) -> list[float]:
    """Return the times of blocks of 50 ms, if samples of `lost_ms` are lost before every `every`-th one."""
    return [50 * (block + 1) + lost_ms * (block // every) for block in range(count)]


@pytest.mark.parametrize(
    ("lost_ms", "every", "last_blocks"),
    [
        (90.0, 3, []),  # the second loss, every 6 blocks, is too much; a window has 10
        (40.0, 4, [10, 22, 34, 46]),  # the third loss, every 12 blocks
        (0.0, 3, [10, 15, 20, 25, 30, 35, 40, 45]),
    ],
)
def test_small_losses_add_up(
    evaluate: Callable[[str, Any], Any], lost_ms: float, every: int, last_blocks: list[int]
) -> None:
    times = _capture_times(48, lost_ms, every)
    windows = _live_windows(evaluate, [[np.full(400, block + 1).tolist(), at] for block, at in enumerate(times)])
    assert [int(window[0][-1]) for window in windows if window] == last_blocks
    for window, at in filter(None, windows):
        first = int(window[0])
        assert at - (times[first - 1] - 50) <= 500 + 100, "time from the first to the last sample"


@pytest.mark.parametrize("drift", [-1e-4, 1e-4])
def test_drift_of_the_clock_is_no_loss(evaluate: Callable[[str, Any], Any], drift: float) -> None:
    """In half an hour the drift exceeds the longest pause."""
    count = evaluate(
        """async ([spec, drift]) => {
            const { LiveWindows } = await import("/sound_windows.js");
            const windows = new LiveWindows({ ...spec, rate_hz: 1000, samples: 500 }, 1000);
            const block = new Float32Array(50).fill(1);
            let count = 0;
            for (let i = 1; i <= 36_000; i++) {
                windows.add(block, 50 * i * (1 + drift));
                count += windows.take() !== null;
            }
            return count;
        }""",
        [asdict(TONE_SPEC), drift],
    )
    assert count == 36_000 // 5 - 1


@pytest.mark.parametrize(("buffer_ms", "ends"), [(0, [4, 6, 10, 12, 14, 16]), (50, [4, 6, 8, 10, 12, 14, 16])])
def test_blocks_may_be_late_by_the_buffer_of_the_browser(
    evaluate: Callable[[str, Any], Any], buffer_ms: int, ends: list[int]
) -> None:
    sound = noise(16_000)
    blocks = [
        [sound[start : start + 400].tolist(), (start + 400) / 8 + (120 if start >= 6_000 else 0)]
        for start in range(0, 16_000, 400)
    ]
    found = [window for window in _live_windows(evaluate, blocks, buffer_ms=buffer_ms) if window]
    assert len(found) == len(ends)
    for (window, _), end in zip(found, ends, strict=True):
        np.testing.assert_array_equal(np.array(window, np.float32), sound[1_000 * end - 4_000 : 1_000 * end])


def test_windows_behind_a_gap_have_nothing_from_before(evaluate: Callable[[str, Any], Any]) -> None:
    """The filter of the rate begins anew."""
    blocks = [
        [(np.full(2_400, float(block < 10))).tolist(), 50 * block + (500 if block >= 10 else 0)] for block in range(24)
    ]
    *_, last = [window for window in _live_windows(evaluate, blocks, 48_000) if window]
    assert not np.any(last[0])


# ---- drawing


@pytest.mark.parametrize("spec", [TONE_SPEC, SPEECH_SPEC])
@pytest.mark.parametrize("level", [0.5, 1e-3])
def test_features_match_python(evaluate: Callable[[str, Any], Any], spec: AudioInput, level: float) -> None:
    sound = (level * (tone(spec.window_s, spec.rate_hz) + 0.1 * noise(spec.samples))).astype(np.float32)
    found = evaluate(
        """async ([sound, spec]) => {
            const { LogMel } = await import("/log_mel.js");
            const { data, width, height } = new LogMel(spec).features(Float32Array.from(sound));
            return [Array.from(data), height, width];
        }""",
        [sound.tolist(), asdict(spec)],
    )
    expected = spec.features(sound)
    assert (found[1], found[2]) == expected.shape
    np.testing.assert_allclose(np.array(found[0]).reshape(expected.shape), expected, atol=1e-4)


@pytest.mark.parametrize("display", [UNMEASURED, MapDisplay(0.4, -0.3, 1.0)])
@pytest.mark.parametrize("spec", [TONE_SPEC, SPEECH_SPEC])
def test_spectrogram_matches_python(evaluate: Callable[[str, Any], Any], spec: AudioInput, display: MapDisplay) -> None:
    """Canvas blending rounds differently, so levels may differ by two."""
    sound = (tone(spec.window_s, spec.rate_hz, 700) + 0.2 * noise(spec.samples)).astype(np.float32)
    positions = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    scale = peak(positions)
    about = {"input": asdict(spec), "ramp": heat_ramp().tolist(), "display": asdict(display)}
    drawn = evaluate(
        """async ([sound, cells, scale, about]) => {
            const { drawSpectrogram } = await import("/spectrogram.js");
            const canvas = document.createElement("canvas");
            const map = { data: Float32Array.from(cells), width: 6, height: 5 };
            drawSpectrogram(canvas, Float32Array.from(sound), map, scale, about, 0.6);
            return canvas.toDataURL("image/png");
        }""",
        [sound.tolist(), positions.ravel().tolist(), scale, about],
    )
    heat = display_heat(positions, scale, display.typical_contrast)
    expected = draw_spectrogram(spec.features(sound), heat, (0.0, 1.0), shift=display.shift)[:320]
    found = np.asarray(Image.open(BytesIO(base64.b64decode(drawn.partition(",")[2]))).convert("RGB"))
    assert found.shape == expected.shape == (320, 640, 3)
    assert np.abs(found.astype(int) - expected).max() <= 2


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (7.53, 8.53), (-0.2, 0.3), (3_600.0, 3_610.0), (0.0, 600.0)])
def test_time_marks_are_those_of_python(evaluate: Callable[[str, Any], Any], start: float, end: float) -> None:
    marks = evaluate("async (span) => (await import('/spectrogram.js')).timeMarks(...span)", [start, end])
    assert marks == pytest.approx(list(time_marks(start, end)))
