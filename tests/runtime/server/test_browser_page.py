"""Files of the in-browser inference page and their server."""

import gzip
import http.client
import json
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from kdedge_runtime.errors import MissingDependency, ModelFileError, UsageError
from kdedge_runtime.modalities.table_column import TableColumn
from kdedge_runtime.modalities.tabular import TabularInput
from kdedge_runtime.model import Model
from kdedge_runtime.server import AccessPolicy, Address
from kdedge_runtime.server.browser import web_runtime
from kdedge_runtime.server.browser.page_server import WebServer, describe_model
from kdedge_runtime.server.browser.required_input import with_required_input
from kdedge_runtime.server.browser.web_runtime import onnxruntime_web, unpack
from kdedge_runtime.server.tls import self_signed_context, tls_context

WASM = b"\0asm" + bytes(2000)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Install fake onnxruntime-web files, so that serving is testable without it."""
    folder = tmp_path / "ort"
    folder.mkdir()
    (folder / "ort.wasm.bundle.min.mjs").write_text("export {};")
    (folder / "ort-wasm-simd-threaded.wasm.gz").write_bytes(gzip.compress(WASM))
    monkeypatch.setattr("kdedge_runtime.server.browser.page_server.onnxruntime_web", lambda: onnxruntime_web(folder))
    return folder


@pytest.fixture
def server(stand_in: Path, model: Model) -> Iterator[WebServer]:
    opened = WebServer(AccessPolicy.at(Address("127.0.0.1", 0)), model)
    opened.start("web")
    yield opened
    opened.close()


def _get(server: WebServer, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)) as connection:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response, response.read()


def test_page_is_cross_origin_isolated(server: WebServer) -> None:
    response, body = _get(server, "/")
    assert response.status == 200
    assert b"Nothing is uploaded" in body
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    policy = response.headers["Content-Security-Policy"]
    assert "script-src 'self' 'wasm-unsafe-eval'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe-inline" not in policy
    assert response.headers["Permissions-Policy"] == "camera=(self), microphone=(), geolocation=()"


def test_page_of_sounds_may_open_only_the_microphone(stand_in: Path, tone_model: Model) -> None:
    opened = WebServer(AccessPolicy.at(Address("127.0.0.1", 0)), tone_model)
    opened.start("web")
    try:
        response, _ = _get(opened, "/")
        assert response.headers["Permissions-Policy"] == "camera=(), microphone=(self), geolocation=()"
        description = json.loads(_get(opened, "/model.json")[1])
        assert (description["sensor"], description["shape"], description["dtype"]) == ("microphone", [4_000], "float32")
    finally:
        opened.close()


def test_samples_without_a_sensor_are_refused(stand_in: Path, model: Model) -> None:
    spec = TabularInput((TableColumn("age", "numeric", None, (18.0, 80.0), (), (0.4,)),))
    table = replace(model, metadata=replace(model.metadata, input=spec))
    with pytest.raises(UsageError, match=r"tabular samples.*camera and a microphone.*--view"):
        WebServer(AccessPolicy.at(Address("127.0.0.1", 0)), table)


def test_only_referenced_files_are_served(server: WebServer) -> None:
    kinds = {"/app.js": "text/javascript; charset=utf-8", "/ort/ort-wasm-simd-threaded.wasm": "application/wasm"}
    for path in (
        *kinds,
        "/worker.js",
        "/engine.js",
        "/fit.js",
        "/heat.js",
        "/capture.js",
        "/answer.js",
        "/theme.css",
        "/model.onnx",
    ):
        response, _ = _get(server, path)
        assert response.status == 200, path
        assert response.headers["Content-Type"] == kinds.get(path, response.headers["Content-Type"])
    for path in ("/ort/", "/ort/../server.py", "/../assets.py", "/%2e%2e/tls.py", "/server.py", "/model.onnx/"):
        assert _get(server, path)[0].status == 404, path
    assert _get(server, "/", Host="evil.example")[0].status == 403


def test_large_file_is_compressed_if_accepted(server: WebServer) -> None:
    path = "/ort/ort-wasm-simd-threaded.wasm"
    response, body = _get(server, path, Accept_Encoding="gzip, br")
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == WASM
    response, body = _get(server, path)
    assert response.headers["Content-Encoding"] is None
    assert body == WASM


def test_model_json_matches_metadata(server: WebServer, model: Model) -> None:
    description = json.loads(_get(server, "/model.json")[1])
    assert description["labels"] == ["red", "green", "blue"]
    assert (description["input"]["height"], description["input"]["resize"], description["temperature"]) == (
        64,
        "crop",
        1.0,
    )
    assert (description["has_map"], description["is_quantized"]) == (True, False)
    assert len(description["ramp"]) == 256
    assert description == json.loads(json.dumps(describe_model(model)))


def test_optional_input_becomes_required(model_path: Path, red_spot: np.ndarray, model: Model) -> None:
    cut = with_required_input(model_path.read_bytes(), "class_index")
    before, after = onnx.load(model_path), onnx.load_from_string(cut)
    onnx.checker.check_model(after)
    (gone,) = [item for item in before.graph.initializer if item.name == "class_index"]
    before.graph.initializer.remove(gone)
    assert before == after
    session = ort.InferenceSession(cut)
    assert [item.name for item in session.get_inputs()] == ["image", "class_index"]
    for wanted in (-1, 0, 2):
        feed = {"image": red_spot[None], "class_index": np.array([wanted], np.int64)}
        expected = model.predict(red_spot[None], None if wanted < 0 else wanted)
        logits, saliency_map, explained = session.run(["logits", "saliency_map", "explained_class"], feed)
        np.testing.assert_array_equal(logits, expected.logits)
        np.testing.assert_array_equal(saliency_map, expected.saliency_map)
        np.testing.assert_array_equal(explained, expected.explained_class)


def test_model_without_optional_input_is_unchanged(write_model: Callable[..., Path]) -> None:
    content = write_model().read_bytes()
    assert with_required_input(content, "none_of_this_name") == content
    for damaged in (content[:-5], b"\x0f" + content, b"\xff" * 30):
        with pytest.raises(ModelFileError, match="damaged"):
            with_required_input(damaged, "class_index")


def test_missing_onnxruntime_web_error_names_the_command(model: Model, tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match=r"make web-assets.*npm pack onnxruntime-web@1\.30\.0") as caught:
        onnxruntime_web(tmp_path)
    assert caught.value.exit_code == 3


def test_only_the_pinned_package_is_unpacked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="npm pack"):
        unpack(tmp_path / "none.tgz", tmp_path / "ort")
    (tmp_path / "other.tgz").write_bytes(b"something else")
    with pytest.raises(UsageError, match=r"is not onnxruntime-web@1\.30\.0: expected sha512-"):
        unpack(tmp_path / "other.tgz", tmp_path / "ort")
    assert not (tmp_path / "ort").exists()


def test_make_target_uses_the_pinned_package() -> None:
    makefile = (Path(__file__).parents[3] / "Makefile").read_text()
    assert f"npm pack --silent {web_runtime.PACKAGE} " in makefile


def test_self_signed_certificate_is_created(stand_in: Path, model: Model) -> None:
    try:
        tls, fingerprint = self_signed_context("--cert")
    except MissingDependency as error:
        pytest.skip(str(error))
    server = WebServer(AccessPolicy(Address("127.0.0.1", 0), "t" * 20), model, tls)
    server.start("web")
    try:
        assert server.url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", server.server_address[1], context=trusting, timeout=10)
        connection.request("GET", "/?token=" + "t" * 20)
        response = connection.getresponse()
        response.read()
        assert response.status == 303
        assert "; Secure" in response.headers["Set-Cookie"]
        der = connection.sock.getpeercert(binary_form=True)
        connection.close()
    finally:
        server.close()
    assert len(fingerprint) == 95
    assert ssl.DER_cert_to_PEM_cert(der)


def test_invalid_certificate_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "both.pem").write_text("nothing")
    for path in (tmp_path / "both.pem", tmp_path / "missing.pem"):
        with pytest.raises(UsageError, match="--cert"):
            tls_context(path, "--cert")


def test_wheel_contains_pages_and_is_small(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="needs hatchling")
    folder = Path(__file__).parents[3] / "runtime"
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    subprocess.run([*build, folder], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    sizes = {
        item.filename.removeprefix("kdedge_runtime/server/"): item.compress_size for item in ZipFile(wheel).infolist()
    }
    assert {"live_view/page.html", "live_view/view.js", "browser/app.js", "theme.css"} <= sizes.keys()
    packed = {name for name in sizes if name.startswith("browser/ort/")}
    assert sum(size for name, size in sizes.items() if name not in packed) < 2_000_000
    assert ("browser/ort/ort.wasm.bundle.min.mjs" in packed) == (
        web_runtime.FOLDER / "ort.wasm.bundle.min.mjs"
    ).is_file()
