"""Page for sounds in the browser: answers equal to Python, with a fake microphone and with files."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from browser import browser, open_page, served, wait_until
from sound_files import noise, tone
from tone_model import TONE_HZ, TONE_SPEC

from kdedge_runtime.model import Model
from kdedge_runtime.util.sounds import read_sound

RATE_HZ = TONE_SPEC.rate_hz
LATEST = """async () => {
    const { latest } = await import("/app.js");
    return latest && {
        input: Array.from(latest.input), logits: Array.from(latest.logits), explained: latest.explained,
        scores: latest.scores, unknown: latest.unknown, span: latest.span, map: Array.from(latest.map.data),
    };
}"""


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
    with served(tone_model) as address:
        yield address


@pytest.fixture
def page(chromium: Any, url: str) -> Iterator[Any]:
    opened = open_page(chromium, url, viewport={"width": 1280, "height": 860})
    opened.wait_for_selector("#live:enabled")
    yield opened
    opened.context.close()


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
        page.wait_for_selector("#state.paused")
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
