"""Sound in the browser: windows, features and drawings equal to Python, with a fake microphone."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import asdict
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from browser import browser, open_page, wait_until
from PIL import Image
from sound_files import tone
from tone_model import TONE_HZ, TONE_SPEC

from kdedge_runtime.drawing.colormap import heat_ramp
from kdedge_runtime.drawing.heatmap import UNMEASURED, MapDisplay, display_heat, peak
from kdedge_runtime.drawing.spectrogram import draw_spectrogram, time_marks
from kdedge_runtime.errors import MissingDependency, UnreadableSample
from kdedge_runtime.modalities.audio import AudioInput
from kdedge_runtime.model import Model
from kdedge_runtime.server import AccessPolicy, Address
from kdedge_runtime.server.browser.page_server import WebServer
from kdedge_runtime.server.browser.web_runtime import onnxruntime_web
from kdedge_runtime.sources.audio import SoundWindows
from kdedge_runtime.sources.audio.windows import sliding_windows
from kdedge_runtime.util.arrays import Floats
from kdedge_runtime.util.sounds import Resampler, read_sound

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
LATEST = """async () => {
    const { latest } = await import("/app.js");
    return latest && {
        input: Array.from(latest.input), logits: Array.from(latest.logits), explained: latest.explained,
        scores: latest.scores, unknown: latest.unknown, span: latest.span, map: Array.from(latest.map.data),
    };
}"""


def noise(samples: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Browser whose microphone hears a high tone, interrupted for a quarter of a second every 0.75 s."""
    recording = tmp_path_factory.mktemp("microphone") / "high.wav"
    sound = tone(3.0, 48_000, TONE_HZ["high"])
    sound[np.arange(len(sound)) % 36_000 >= 24_000] = 0
    soundfile.write(recording, sound + 0.001 * noise(len(sound)), 48_000, subtype="PCM_16")
    with browser(
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={recording}",
    ) as opened:
        yield opened


@pytest.fixture(scope="module")
def url(tone_model: Model) -> Iterator[str]:
    try:
        onnxruntime_web()
    except MissingDependency:
        pytest.skip("onnxruntime-web is not here: make web-assets")
    server = WebServer(AccessPolicy.at(Address("127.0.0.1", 0)), tone_model)
    server.start("web")
    yield server.url
    server.close()


@pytest.fixture
def page(chromium: Any, url: str) -> Iterator[Any]:
    opened = open_page(chromium, url, viewport={"width": 1280, "height": 860})
    opened.wait_for_selector("#live:enabled")
    yield opened
    opened.context.close()


@pytest.fixture(scope="module")
def evaluate(chromium: Any, url: str) -> Callable[[str, Any], Any]:
    """Function that evaluates JavaScript of the page's files."""
    opened = open_page(chromium, url)
    return lambda code, given: opened.evaluate(code, given)


def _assert_as_in_python(latest: dict[str, Any], model: Model, class_index: int | None = None) -> None:
    sound = np.array(latest["input"], np.float32)
    expected = model.predict(sound[None], class_index)
    np.testing.assert_allclose(latest["logits"], expected.logits[0], atol=1e-3)
    np.testing.assert_allclose(latest["scores"], expected.scores[0], atol=1e-3)
    assert expected.saliency_map is not None and expected.unknown is not None
    np.testing.assert_allclose(latest["map"], expected.saliency_map.ravel(), atol=1e-2)  # of 100
    assert latest["explained"] == expected.explained_class[0]
    assert latest["unknown"] == expected.unknown[0]


def _open_file(page: Any, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.click("#file")
    chooser.value.set_files(path)


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


# ---- microphone


def test_microphone_results_match_python_without_network_requests(page: Any, tone_model: Model) -> None:
    requests: list[str] = []
    page.click("#live")
    page.wait_for_selector("#heat:visible")
    page.on("request", lambda request: requests.append(request.url))
    page.wait_for_selector("#state.live")
    page.wait_for_selector("#label:text-is('high')")
    latest = page.evaluate(LATEST)
    _assert_as_in_python(latest, tone_model)
    evidence = np.maximum(np.array(latest["map"]).reshape(30, 25), 0).sum(axis=1)
    assert evidence.argmax() == tone_model.metadata.input.features(tone(0.5, RATE_HZ, 2_600)).mean(axis=1).argmax()
    assert latest["span"][1] - latest["span"][0] == pytest.approx(0.5)
    assert page.text_content("#times").endswith(" s")
    assert "high" in page.text_content("#keys"), "answers of the last minute"
    page.click("text=Stop")
    assert requests == [], "no upload"
    assert page.problems == []


def test_selected_class_is_explained(page: Any, tone_model: Model) -> None:
    page.click("#live")
    page.wait_for_selector("#heat:visible")
    page.click("#live:text-is('Stop')")
    page.click("#explain")
    page.click("dialog .choices button:text-is('low')")
    page.wait_for_selector("#why:has-text('low')")
    _assert_as_in_python(page.evaluate(LATEST), tone_model, 0)
    assert page.problems == []


KEEP_STREAMS = """() => {
    globalThis.given = [];
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
        const stream = await ask(wanted);
        given.push({ stream, wanted });
        return stream;
    };
}"""


def test_muted_microphone_gets_no_answer(page: Any) -> None:
    page.evaluate(KEEP_STREAMS)
    page.click("#live")
    page.wait_for_selector("#label:text-is('high')")
    for mute, unmute in (
        ("track.enabled = false", "track.enabled = true"),  # samples are zeros
        ("track.dispatchEvent(new Event('mute'))", "track.dispatchEvent(new Event('unmute'))"),
    ):
        page.evaluate(f"() => {{ const [track] = given[0].stream.getAudioTracks(); {mute}; }}")
        page.wait_for_selector("#state.held")
        assert page.evaluate(LATEST) is None
        assert page.text_content("#label") == "–" and page.text_content("#p") == ""
        assert not page.is_visible("#heat") and "muted" in page.text_content("#empty")
        assert page.text_content("#fps") == "–"
        page.wait_for_timeout(600)  # more than two windows
        assert page.evaluate(LATEST) is None
        page.evaluate(f"() => {{ const [track] = given[0].stream.getAudioTracks(); {unmute}; }}")
        page.wait_for_selector("#label:text-is('high')")
        page.wait_for_selector("#state.live")
        assert not page.is_visible("#empty")
    assert page.problems == []


def test_sound_is_not_processed_and_unused_microphones_are_stopped(page: Any) -> None:
    page.evaluate(KEEP_STREAMS)
    page.evaluate("() => { for (let click = 0; click < 3; click++) document.getElementById('live').click(); }")
    page.wait_for_selector("#heat:visible")
    wait_until(page, "given.length === 3")
    wanted = page.evaluate("given[0].wanted.audio")
    assert wanted == {"echoCancellation": False, "noiseSuppression": False, "autoGainControl": False}
    on = "given.flatMap(({ stream }) => stream.getTracks()).filter((track) => track.readyState === 'live').length"
    wait_until(page, f"{on} === 1")
    page.click("text=Stop")
    assert page.evaluate(on) == 0
    assert page.problems == []


def test_disconnected_and_denied_microphones_are_reported(page: Any) -> None:
    page.evaluate(KEEP_STREAMS)
    page.click("#live")
    page.wait_for_selector("#heat:visible")
    page.evaluate("() => given[0].stream.getAudioTracks()[0].dispatchEvent(new Event('ended'))")
    page.wait_for_selector("#message.bad:has-text('disconnected')")
    assert page.text_content("#live") == "Start the microphone"
    for name, words in (
        ("NotAllowedError", "Microphone access was denied"),
        ("NotFoundError", "No microphone"),
        ("NotReadableError", "other programs"),
    ):
        page.evaluate(
            f"() => {{ navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{name}')) }}"
        )
        page.click("#live")
        page.wait_for_selector(f"#message.bad:has-text('{words}')")
    assert page.problems == []


def test_microphone_is_stopped_if_its_processing_fails(page: Any) -> None:
    """The first start is superseded before its permission is granted."""
    page.evaluate(KEEP_STREAMS)
    page.evaluate(
        """() => {
            AudioWorklet.prototype.addModule = () => Promise.reject(new Error("no module"));
            for (let click = 0; click < 2; click++) document.getElementById("live").click();
        }"""
    )
    page.wait_for_selector("#message.bad:has-text('no module')")
    wait_until(page, "given.length === 2")
    wait_until(page, "given.every(({ stream }) => stream.getTracks().every((track) => track.readyState === 'ended'))")
    assert page.problems == []


KEEP_CONTEXTS = """() => {
    globalThis.contexts = [];
    globalThis.AudioContext = class extends AudioContext {
        constructor() {
            super();
            contexts.push(this);
        }
    };
}"""


def test_interrupted_microphone_is_resumed(page: Any) -> None:
    page.evaluate(KEEP_CONTEXTS)
    page.click("#live")
    page.wait_for_selector("#label:text-is('high')")
    page.evaluate("() => contexts[0].suspend()")
    page.evaluate("() => { document.getElementById('label').textContent = '' }")
    wait_until(page, "contexts[0].state === 'running'")
    page.wait_for_selector("#label:text-is('high')")
    assert page.problems == []


@pytest.mark.parametrize("is_started", [False, True])
def test_microphone_that_cannot_be_resumed_is_reported(page: Any, is_started: bool) -> None:
    page.clock.install()
    page.evaluate(KEEP_STREAMS)
    page.evaluate(KEEP_CONTEXTS)
    never = "AudioContext.prototype.resume = () => new Promise(() => {})"
    if is_started:
        page.click("#live")
        page.wait_for_selector("#label:text-is('high')")
        page.evaluate(f"() => {{ {never}; return contexts[0].suspend(); }}")
    else:
        create = "AudioContext = class extends AudioContext { constructor() { super(); this.suspend(); } }"
        page.evaluate(f"() => {{ {never}; globalThis.{create}; }}")
        page.click("#live")
        page.wait_for_selector("#live:text-is('Stop')")
    wait_until(page, "contexts[0].state === 'suspended'")
    page.clock.fast_forward(10_000)
    page.wait_for_selector("#message.bad:has-text('interrupted')")
    page.wait_for_selector("#state:text-is('ready')")
    assert page.evaluate("given[0].stream.getTracks()[0].readyState") == "ended"
    assert page.problems == []


# ---- files


@pytest.mark.parametrize(
    ("name", "seconds", "options"),
    [
        ("low", 0.5, {"subtype": "FLOAT"}),
        ("middle", 0.3, {"subtype": "PCM_16"}),
        ("high", 0.45, {"format": "FLAC", "subtype": "PCM_16"}),
    ],
)
def test_short_sound_is_explained(
    page: Any, tone_model: Model, tmp_path: Path, name: str, seconds: float, options: dict[str, str]
) -> None:
    path = tmp_path / f"{name}.{options.get('format', 'wav').lower()}"
    soundfile.write(path, tone(seconds, RATE_HZ, TONE_HZ[name]), RATE_HZ, **options)
    _open_file(page, path)
    page.wait_for_selector(f"#label:text-is('{name}')")
    latest = page.evaluate(LATEST)
    expected = tone_model.metadata.input.preprocess(read_sound(path, RATE_HZ))
    np.testing.assert_allclose(latest["input"], expected, atol=1e-4)  # 16 bits of a float
    _assert_as_in_python(latest, tone_model)
    prediction = tone_model.predict(expected[None])
    np.testing.assert_allclose(latest["scores"], prediction.scores[0], atol=1e-3)
    assert latest["span"] == pytest.approx([(seconds - 0.5) / 2, (seconds + 0.5) / 2])
    assert page.problems == []


def test_short_sound_is_played_to_its_end(page: Any, tmp_path: Path) -> None:
    page.evaluate(
        """() => {
            globalThis.events = [];
            const { start } = AudioBufferSourceNode.prototype, { close } = AudioContext.prototype;
            AudioBufferSourceNode.prototype.start = function () {
                this.addEventListener("ended", () => events.push("ended"));
                start.call(this);
            };
            AudioContext.prototype.close = function () {
                events.push("closed");
                return close.call(this);
            };
        }"""
    )
    soundfile.write(tmp_path / "low.wav", tone(0.5, RATE_HZ, TONE_HZ["low"]), RATE_HZ)
    _open_file(page, tmp_path / "low.wav")
    page.wait_for_selector("#label:text-is('low')")
    page.wait_for_selector("#state:text-is('ready')")
    assert page.evaluate("events") == ["ended", "closed"]
    assert page.problems == []


def test_class_is_explained_while_a_short_sound_is_played(page: Any, tone_model: Model, tmp_path: Path) -> None:
    """The browser does not begin to play the sound, so that it ends only after a timeout."""
    page.evaluate("() => { AudioBufferSourceNode.prototype.start = () => {} }")
    soundfile.write(tmp_path / "low.wav", tone(0.5, RATE_HZ, TONE_HZ["low"]), RATE_HZ)
    _open_file(page, tmp_path / "low.wav")
    page.wait_for_selector("#why:has-text('low')")
    page.evaluate(
        """() => {
            document.getElementById("explain").click();
            const choices = [...document.querySelectorAll("dialog .choices button")];
            choices.find((each) => each.textContent === "high").click();
        }"""
    )
    page.wait_for_selector("#why:has-text('high')")
    _assert_as_in_python(page.evaluate(LATEST), tone_model, 2)
    page.wait_for_selector("#state:text-is('ready')")
    assert page.problems == []


def test_chart_has_the_last_answer_of_a_file(page: Any, tmp_path: Path) -> None:
    """Both answers are in the same half second of the fixed clock, so the second one waits for the next."""
    page.clock.set_fixed_time(1_700_000_000)
    sound = np.concatenate([tone(0.3, RATE_HZ, TONE_HZ["low"]), tone(0.45, RATE_HZ, TONE_HZ["high"])])
    soundfile.write(tmp_path / "both.wav", sound, RATE_HZ)
    _open_file(page, tmp_path / "both.wav")
    page.wait_for_selector("#label:text-is('low')")
    page.wait_for_selector("#label:text-is('high')")
    page.wait_for_selector("#state:text-is('ready')")
    assert page.text_content("#keys") == "high"
    assert page.problems == []


@pytest.mark.parametrize("suffix", ["wav", "ogg"])
def test_long_file_of_another_rate_is_played_to_its_end(
    page: Any, tone_model: Model, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"stereo.{suffix}"
    stereo = np.stack([tone(1.1, 44_100, TONE_HZ["middle"]), np.zeros(48_510, np.float32)], axis=1)
    soundfile.write(path, stereo, 44_100)
    _open_file(page, path)
    page.wait_for_selector("#label:text-is('middle')")
    page.wait_for_selector("#state:text-is('ready')")
    latest = page.evaluate(LATEST)
    assert latest["span"] == pytest.approx([0.6, 1.1], abs=5e-3)  # decoders of ogg differ by 3 ms
    _assert_as_in_python(latest, tone_model)
    if suffix == "wav":
        expected = read_sound(path, RATE_HZ)[-4_000:]
        np.testing.assert_allclose(latest["input"][:-400], expected[:-400], atol=1e-3)
    assert page.problems == []


def test_rate_in_the_header_is_used(page: Any, tmp_path: Path) -> None:
    """Sounds of the model's rate are not converted, which would weaken high frequencies."""
    sound = tone(0.5, RATE_HZ, 3_700)
    for suffix, tolerance in (("wav", 1e-3), ("flac", 1e-3), ("ogg", 0.05)):
        soundfile.write(tmp_path / f"a.{suffix}", sound, RATE_HZ)
        page.evaluate("() => { document.getElementById('label').textContent = '' }")
        _open_file(page, tmp_path / f"a.{suffix}")
        page.wait_for_selector("#label:text-is('high')")
        level = np.abs(np.fft.rfft(page.evaluate(LATEST)["input"]))[1_850] / 2_000
        assert level == pytest.approx(0.5, abs=tolerance)


def test_silent_and_unreadable_files_are_reported(page: Any, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(8_000), RATE_HZ)
    (tmp_path / "text.wav").write_text("nothing")
    for name, words in (("silent.wav", "only zeros"), ("text.wav", "not a sound")):
        _open_file(page, tmp_path / name)
        page.wait_for_selector(f"#message.bad:has-text('{words}')")
    assert page.evaluate(LATEST) is None
    assert page.problems == []


def test_noise_is_unknown(page: Any, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.wav", noise(4_000), RATE_HZ)
    _open_file(page, tmp_path / "noise.wav")
    page.wait_for_selector("#label:text-is('unknown')")
    assert page.text_content("#p") == ""


def test_page_fits_a_phone(chromium: Any, url: str) -> None:
    page = open_page(chromium, url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.wait_for_selector("#live:enabled")
    page.tap("#live")
    page.wait_for_selector("#heat:visible")
    page.wait_for_selector("#times:visible")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    marks = page.evaluate(
        """() => [...document.querySelectorAll("#times span")].map((mark) => {
            const { left, right } = mark.getBoundingClientRect();
            return [left, right];
        })"""
    )
    assert marks and marks[0][0] >= 0 and marks[-1][1] <= 390
    assert all(right < left for (_, right), (left, _) in pairwise(marks))
    page.context.close()
