"""Browser inference: preprocessing, logits and maps equal to Python, with a fake camera."""

import base64
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browser, open_page, served, wait_until
from PIL import Image, PngImagePlugin

from kdedge_runtime.drawing.colormap import heat_ramp
from kdedge_runtime.drawing.heatmap import UNMEASURED, MapDisplay, SmoothedScale, display_heat, peak
from kdedge_runtime.drawing.overlay import draw_overlay
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.model import Model
from kdedge_runtime.util.images import read_image

FILM = Path(__file__).parents[4] / "shared" / "data" / "camera-bottles-640x360.mp4"
LATEST = """async () => {
    const { latest } = await import("/app.js");
    return latest && {
        input: Array.from(latest.input), logits: Array.from(latest.logits), explained: latest.explained,
        map: Array.from(latest.map.data), width: latest.map.width, height: latest.map.height,
    };
}"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Browser whose camera plays the video, or colored squares if it is missing."""
    camera = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    camera.write_bytes(b"".join(_jpegs()))
    with browser(
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
    ) as opened:
        yield opened


def _jpegs() -> Iterator[bytes]:
    frames = _film() if FILM.exists() else _spots()
    for frame in frames:
        content = BytesIO()
        Image.fromarray(frame).save(content, "JPEG", quality=90)
        yield content.getvalue()


def _film() -> Iterator[np.ndarray]:
    cv2 = pytest.importorskip("cv2", reason="needs OpenCV")
    film = cv2.VideoCapture(str(FILM))
    for _ in range(60):
        yield film.read()[1][..., ::-1]


def _spots() -> Iterator[np.ndarray]:
    for shift in range(60):
        rgb = np.full((360, 640, 3), 90, np.uint8)
        rgb[100:180, 200 + shift : 280 + shift] = (255, 0, 0)
        yield rgb


@pytest.fixture
def serve() -> Iterator[Callable[[Model], str]]:
    with ExitStack() as stack:
        yield lambda model: stack.enter_context(served(model))


@pytest.fixture
def page(chromium: Any, serve: Callable[[Model], str], model: Model) -> Iterator[Any]:
    opened = open_page(chromium, serve(model), viewport={"width": 1280, "height": 860})
    opened.wait_for_selector("#live:enabled")
    yield opened
    opened.context.close()


@pytest.fixture(scope="module")
def functions(chromium: Any, model: Model) -> Iterator[Any]:
    """Page in which functions of its modules are called; it is not clicked, since loading takes seconds."""
    with served(model) as address:
        opened = open_page(chromium, address)
        yield opened
        opened.context.close()


def _latest(page: Any) -> dict[str, np.ndarray]:
    found = page.evaluate(LATEST)
    return {
        "input": np.array(found["input"], np.uint8),
        "logits": np.array(found["logits"], np.float32),
        "map": np.array(found["map"], np.float32).reshape(found["height"], found["width"]),
        "explained": np.array(found["explained"]),
    }


def _assert_as_in_python(latest: dict[str, np.ndarray], model: Model, class_index: int | None = None) -> None:
    spec = model.metadata.input
    expected = model.predict(latest["input"].reshape(1, spec.height, spec.width, 3), class_index)
    np.testing.assert_allclose(latest["logits"], expected.logits[0], atol=1e-3)
    np.testing.assert_allclose(latest["map"], expected.saliency_map[0], atol=1e-3)
    assert latest["explained"] == expected.explained_class[0]


@pytest.mark.parametrize(
    ("height", "width", "rule"),
    [
        (360, 640, {}),
        (640, 360, {"crop_fraction": 0.875}),
        (480, 641, {"resize": "squash"}),
        (37, 53, {"interpolation": "bicubic"}),
        (300, 200, {"interpolation": "bicubic", "resize": "squash"}),
        (64, 64, {}),
        (64, 64, {"crop_fraction": 0.8}),
        (64, 96, {}),
        (278, 19, {}),
        (261, 35, {"resize": "squash", "interpolation": "bicubic"}),
        (1, 1, {}),
        (360, 640, {"resize": "letterbox"}),
        (641, 480, {"resize": "letterbox", "interpolation": "bicubic"}),
        (64, 48, {"resize": "letterbox"}),
        (3, 1000, {"resize": "letterbox"}),
        (1, 1, {"resize": "letterbox"}),
        (3, 1000, {"crop_fraction": 0.9}),
    ],
)
def test_preprocessing_is_bit_exact_with_python(functions: Any, height: int, width: int, rule: dict[str, Any]) -> None:
    spec = ImageInput(64, 48 if rule.get("resize") else 64, (0.0,) * 3, (1.0,) * 3, **rule)
    picture = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    rgba = np.dstack([picture, np.full((height, width), 255, np.uint8)])
    fitted = functions.evaluate(
        """async ([rgba, width, height, spec]) => {
            const { fit } = await import("/fit.js");
            const pixels = Uint8ClampedArray.from(atob(rgba), (byte) => byte.charCodeAt(0));
            return Array.from(fit(pixels, width, height, spec));
        }""",
        [
            base64.b64encode(rgba.tobytes()).decode(),
            width,
            height,
            {name: getattr(spec, name) for name in ("height", "width", "resize", "crop_fraction", "interpolation")},
        ],
    )
    np.testing.assert_array_equal(
        np.array(fitted, np.uint8).reshape(spec.height, spec.width, 3), spec.preprocess(picture)
    )


def test_camera_results_match_python_without_network_requests(page: Any, model: Model) -> None:
    requests: list[str] = []
    assert page.evaluate("crossOriginIsolated"), "required for threads"
    page.on("request", lambda request: requests.append(request.url))
    page.click("#live")
    page.wait_for_selector("#heat:visible")
    page.wait_for_selector("#state.live")
    page.wait_for_timeout(500)
    assert requests == [], "no upload"
    _assert_as_in_python(_latest(page), model)
    assert page.text_content("#label") in model.metadata.labels
    assert page.text_content("#label") in page.text_content("#keys"), "answers of the last minute"
    page.click("text=Stop")
    assert page.problems == []


def test_unused_cameras_are_stopped(page: Any) -> None:
    page.evaluate(
        """() => {
            globalThis.given = [];
            const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
            navigator.mediaDevices.getUserMedia = async (wanted) => {
                const stream = await ask(wanted);
                given.push(stream);
                return stream;
            };
            for (let click = 0; click < 3; click++) document.getElementById("live").click();
        }"""
    )
    page.wait_for_selector("#state.live")
    wait_until(page, "given.length === 3")
    page.wait_for_selector("#heat:visible")
    on = "given.flatMap((stream) => stream.getTracks()).filter((track) => track.readyState === 'live').length"
    assert page.evaluate(on) == 1
    page.click("text=Stop")
    assert page.evaluate(on) == 0
    assert page.problems == []


def test_selected_class_is_explained(page: Any, model: Model) -> None:
    page.click("#live")
    page.wait_for_selector("#heat:visible")
    page.click("#explain")
    page.click("dialog .choices button:text-is('blue')")
    page.wait_for_selector("#why:has-text('blue')")
    latest = _latest(page)
    assert latest["explained"] == 2
    _assert_as_in_python(latest, model, 2)
    assert page.problems == []


def test_image_is_explained_with_opacity(page: Any, model: Model, red_spot: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(np.kron(red_spot, np.ones((4, 4, 1), np.uint8))).save(tmp_path / "spot.png")
    with page.expect_file_chooser() as chooser:
        page.click("#file")
    chooser.value.set_files(tmp_path / "spot.png")
    page.wait_for_selector("#label:has-text('red')")
    latest = _latest(page)
    picture = np.asarray(Image.open(tmp_path / "spot.png"))
    np.testing.assert_array_equal(latest["input"].reshape(64, 64, 3), model.metadata.input.preprocess(picture))
    _assert_as_in_python(latest, model)

    def green_on_the_spot() -> int:
        return page.evaluate("document.getElementById('image').getContext('2d').getImageData(176, 80, 1, 1).data[1]")

    assert green_on_the_spot() > 60
    page.fill("#opacity", "0")
    page.wait_for_selector("#opacity-value:has-text('0%')")
    page.wait_for_timeout(300)
    assert green_on_the_spot() == 0
    assert [problem for problem in page.problems if "willReadFrequently" not in problem] == [], "caused by this test"


def test_transparency_matches_python(page: Any, model: Model, tmp_path: Path) -> None:
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[:, 32:] = (255, 0, 0, 255)
    Image.fromarray(picture).save(tmp_path / "logo.png")
    with page.expect_file_chooser() as chooser:
        page.click("#file")
    chooser.value.set_files(tmp_path / "logo.png")
    page.wait_for_selector("#label:has-text('red')")
    latest = _latest(page)
    np.testing.assert_array_equal(latest["input"].reshape(64, 64, 3), read_image(tmp_path / "logo.png"))
    _assert_as_in_python(latest, model)


def test_color_profile_is_ignored_as_in_python(page: Any, model: Model, tmp_path: Path) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"gAMA", (100_000).to_bytes(4, "big"))  # linear gamma, which a browser would convert
    Image.new("RGB", (64, 64), (120, 40, 40)).save(tmp_path / "linear.png", pnginfo=chunks)
    with page.expect_file_chooser() as chooser:
        page.click("#file")
    chooser.value.set_files(tmp_path / "linear.png")
    page.wait_for_selector("#label:has-text('red')")
    assert np.unique(_latest(page)["input"]).tolist() == [40, 120]


@pytest.mark.parametrize("display", [UNMEASURED, MapDisplay(0.4, -0.3, 1.0), MapDisplay(-1.0, 0.25, 9.0)])
def test_heat_map_matches_python(functions: Any, display: MapDisplay) -> None:
    """Canvas blending rounds differently, so levels may differ by two."""
    positions = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    spec, scale = ImageInput(60, 60, (0.0,) * 3, (1.0,) * 3, resize="squash"), peak(positions)
    drawn = functions.evaluate(
        """async ([cells, scale, about]) => {
            const { drawOverlay } = await import("/overlay.js");
            const white = new ImageData(new Uint8ClampedArray(260 * 180 * 4).fill(255), 260, 180);
            const frame = await createImageBitmap(white);
            const canvas = document.createElement("canvas");
            drawOverlay(canvas, frame, { data: Float32Array.from(cells), width: 6, height: 5 }, scale, about, 0.6);
            return [...canvas.getContext("2d").getImageData(0, 0, 260, 180).data];
        }""",
        [
            positions.ravel().tolist(),
            scale,
            {"input": asdict(spec), "ramp": heat_ramp().tolist(), "display": asdict(display)},
        ],
    )
    white = np.full((180, 260, 3), 255, np.uint8)
    heat = display_heat(positions, scale, display.typical_contrast)
    expected = draw_overlay(white, heat, (0, 0, 260, 180), shift=display.shift)
    found = np.array(drawn, np.uint8).reshape(180, 260, 4)[..., :3]
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_heat_scale_matches_python(functions: Any) -> None:
    peaks = [(4.0, 0.0), (1.0, 0.5), (1.0, 0.02), (0.0, 3.0), (2.0, 0.1)]
    python = SmoothedScale()
    shown = functions.evaluate(
        """async (peaks) => {
            const { SmoothedScale } = await import("/heat.js");
            const steady = new SmoothedScale();
            return peaks.map(([peak, elapsed]) => steady.update(peak, elapsed));
        }""",
        peaks,
    )
    assert shown == pytest.approx([python.update(peak, elapsed_s) for peak, elapsed_s in peaks])


def test_embedding_model_shows_similarities(
    chromium: Any, serve: Callable[[Model], str], embedding_model: Model, red_spot: np.ndarray, tmp_path: Path
) -> None:
    page = open_page(chromium, serve(embedding_model))
    page.wait_for_selector("#live:enabled")
    red_spot[40:60, 4:28] = (30, 60, 250)
    Image.fromarray(red_spot).save(tmp_path / "spot.png")
    page.set_input_files("#picker", tmp_path / "spot.png")
    page.wait_for_selector("#label:not(:empty):not(:text-is('–'))")
    latest = _latest(page)
    _assert_as_in_python(latest, embedding_model)
    best, *others = sorted(latest["logits"], reverse=True)
    assert page.text_content("#p") == f"{best:.2f}"
    assert [found.text_content() for found in page.query_selector_all("#others .number")] == [
        f"{score:.2f}" for score in others
    ]
    assert page.problems == []


def test_denied_camera_and_int8_are_reported(
    chromium: Any, serve: Callable[[Model], str], write_model: Callable[..., Path]
) -> None:
    model = Model.load(write_model())
    quantized = replace(model, metadata=replace(model.metadata, quantization={"weights": "int8"}))
    page = open_page(chromium, serve(quantized))
    page.wait_for_selector("#live:enabled")
    assert page.is_visible("#quantized")
    page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError')) }"
    )
    page.click("#live")
    page.wait_for_selector("#message.bad:has-text('denied')")
    assert page.problems == []
