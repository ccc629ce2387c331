"""Live view over HTTP: frames added to enrolled classes, while the run answers with them."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from embedding_model import write_embedding_model
from enrolling_view import Colors, Site
from view_client import ABOUT, HERE, get, post, shown_now

from kdedge_runtime.cli.main import main
from kdedge_runtime.enrolled_classes import EnrolledClasses
from kdedge_runtime.model import Model
from kdedge_runtime.server import AccessPolicy, Address
from kdedge_runtime.server.live_view import ClassFile, Controls, LiveView
from kdedge_runtime.stream.runner import run
from kdedge_runtime.stream.settings import LiveSettings


@pytest.fixture
def images(red_spot: np.ndarray) -> list[np.ndarray]:
    """Images of a red and of a green square."""
    return [red_spot, np.roll(red_spot, 1, axis=2)]


@pytest.fixture
def site(embedding_model: Model, tmp_path: Path, images: list[np.ndarray]) -> Iterator[Site]:
    with Site(embedding_model, tmp_path / "new" / "classes.json", images) as opened:
        yield opened


def test_first_class_replaces_those_of_the_model(site: Site, images: list[np.ndarray]) -> None:
    before = site.until(label="red")
    assert (before["can_enroll"], before["revision"]) == (True, 0) and not site.path.exists()
    assert site.enroll(" gate valve ") == (200, {"name": "gate valve", "samples": 1})
    embedding = site.model.predict(images[0][None]).embedding
    np.testing.assert_allclose(site.classes.prototypes, embedding, atol=1e-6)
    after = site.until(label="gate valve")
    assert (after["ranking"][0]["text"], after["unknown"], after["ranked"], after["revision"]) == ("1.00", False, 1, 1)
    choices = json.loads(get(site.view, "/choices.json")[1])
    assert choices["labels"] == ["gate valve"]
    site.source.index = 1
    assert site.until(unknown=True)["label"] == "gate valve"


def test_shown_frame_is_enrolled_although_the_run_goes_on(site: Site) -> None:
    site.until(label="red")
    serial = shown_now(site.view)
    assert post(site.view, "/pause", {"serial": serial})[0] == 200
    site.source.index = 1
    site.until(label="green")
    assert post(site.view, "/enroll", {"serial": serial, "name": "rust"})[1] == {"name": "rust", "samples": 1}
    site.until(label="rust", unknown=True)  # the run shows green, and red was enrolled
    assert site.enroll("leaf")[0] == 200
    site.until(label="leaf", unknown=False)
    assert site.enroll("rust") == (200, {"name": "rust", "samples": 2})
    found = site.classes
    assert found.names == ("rust", "leaf") and [each.samples for each in found.classes] == [2, 1]
    mean = (found.prototypes[1] + site.model.predict(site.source.images[0][None]).embedding[0]) / 2
    np.testing.assert_allclose(found.prototypes[0], mean, atol=1e-6)


def test_explained_class_is_an_enrolled_one(site: Site) -> None:
    site.until(label="red")
    assert post(site.view, "/controls", {"class": "blue"})[0] == 200
    site.until(explained="blue")
    assert site.enroll("rust")[0] == 200
    assert site.until(explained="rust")["controls"]["class"] is None
    site.source.index = 1
    site.until(unknown=True)
    assert site.enroll("leaf")[0] == 200
    assert post(site.view, "/controls", {"class": "rust"})[0] == 200
    assert site.until(label="leaf", explained="rust")["controls"]["class"] == "rust"


def test_region_is_enrolled(embedding_model: Model, tmp_path: Path, images: list[np.ndarray]) -> None:
    wide = np.concatenate(images, axis=1)
    with Site(embedding_model, tmp_path / "classes.json", [wide], crop=True) as site:
        site.until(label="red")
        assert site.enroll("leaf", region="right")[0] == 200
        expected = embedding_model.predict(images[1][None]).embedding
        np.testing.assert_allclose(site.classes.prototypes, expected, atol=1e-6)
        left, right = site.until(label="leaf", unknown=True)["regions"]
        assert (left["label"], right["label"], right["text"]) == ("unknown", "leaf", "1.00")
        status, reply = site.enroll("leaf", region="attic")
        assert status == 400 and "region" in reply["error"]


def test_images_of_other_programs_are_kept(site: Site) -> None:
    site.until(label="red")
    assert site.enroll("rust")[0] == 200
    outside = site.classes.add("leaf", np.float32([[0, 1, 0]])).add("rust", np.float32([[0, 0, 1]]))
    outside.write(site.path)
    assert site.enroll("rust") == (200, {"name": "rust", "samples": 3})
    assert site.classes.names == ("rust", "leaf")
    assert site.until(label="rust", ranked=2)["revision"] == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"name": ""}, "1 to 200"),
        ({"name": "  "}, "1 to 200"),
        ({}, "1 to 200"),
        ({"name": 3}, "name: TEXT"),
        ({"name": "unknown"}, "no class"),
        ({"name": "a\x07"}, "control character"),
        ({"name": "\ud800"}, "control character"),
        ({"name": "a", "serial": 10**9}, "no longer available"),
        ({"name": "a", "serial": "1"}, "serial"),
        ({"name": "a", "region": 1}, "region"),
    ],
)
def test_requests_that_cannot_be_used_are_refused(site: Site, body: dict, message: str) -> None:
    site.until(label="red")
    status, reply = post(site.view, "/enroll", {"serial": shown_now(site.view)} | body)
    assert status == 400 and message in reply["error"] and not site.path.exists()
    assert site.metrics()["revision"] == 0


def test_damaged_file_is_reported_and_left_alone(site: Site, tmp_path: Path) -> None:
    site.until(label="red")
    site.path.parent.mkdir()
    site.path.write_text("{")
    status, reply = site.enroll("rust")
    assert status == 400 and "damaged" in reply["error"] and site.path.read_text() == "{"
    other = Model.load(write_embedding_model(tmp_path / "other.onnx", identity="c" * 16), threads=1)
    EnrolledClasses.of_model(other).add("a", np.float32([[1, 0, 0]])).write(site.path)
    before = site.path.read_bytes()
    status, reply = site.enroll("rust")
    assert status == 400 and "different model" in reply["error"] and site.path.read_bytes() == before
    assert site.until(label="red")["revision"] == 0


def test_class_beyond_the_limit_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.until(label="red")
    monkeypatch.setattr("kdedge_runtime.enrolled_classes._MAX_CLASSES", 1)
    assert site.enroll("rust")[0] == 200
    status, reply = site.enroll("leaf")
    assert status == 400 and "leaf cannot be added to 1 classes" in reply["error"]
    assert site.enroll("rust") == (200, {"name": "rust", "samples": 2})
    assert site.classes.names == ("rust",)


def test_disk_that_cannot_be_written_is_reported(site: Site) -> None:
    site.until(label="red")
    site.path.parent.write_text("a file in place of the folder")
    status, reply = site.enroll("rust")
    assert status == 500 and "cannot be written" in reply["error"]
    assert site.until(label="red")["revision"] == 0


def test_enrollments_at_the_same_time_are_all_kept(site: Site) -> None:
    site.until(label="red")
    serial = shown_now(site.view)
    post(site.view, "/pause", {"serial": serial})
    results: list[tuple[int, dict]] = []

    def enroll(name: str) -> None:
        for _ in range(5):
            results.append(post(site.view, "/enroll", {"serial": serial, "name": name}))

    threads = [threading.Thread(target=enroll, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [status for status, _ in results] == [200] * 15
    assert sorted((each.name, each.samples) for each in site.classes.classes) == [("a", 5), ("b", 5), ("c", 5)]
    assert site.metrics()["revision"] == 15


def test_run_without_classes_refuses(embedding_model: Model, images: list[np.ndarray]) -> None:
    controls, ended = Controls(embedding_model, LiveSettings()), threading.Event()
    with LiveView(HERE, ABOUT, controls) as view:
        thread = threading.Thread(
            target=run, args=(embedding_model, Colors(ended, *images), [view], None, controls, ended), daemon=True
        )
        thread.start()
        try:
            status, reply = post(view, "/enroll", {"serial": shown_now(view), "name": "a"})
            assert json.loads(get(view, "/metrics.json")[1])["can_enroll"] is False
        finally:
            ended.set()
            thread.join()
    assert status == 400 and "--classes FILE" in reply["error"]


def test_access_is_that_of_feedback(embedding_model: Model, tmp_path: Path) -> None:
    controls = Controls(embedding_model, LiveSettings())
    class_file = ClassFile(tmp_path / "classes.json", embedding_model, controls)
    policy = AccessPolicy(Address("127.0.0.1", 0), "t" * 24)
    with LiveView(policy, ABOUT, controls, class_file=class_file) as view:
        body, token = {"serial": 1, "name": "a"}, {"Authorization": "Bearer " + "t" * 24}
        assert post(view, "/enroll", body)[0] == 401
        assert post(view, "/enroll", body, Origin="http://evil.example", **token)[0] == 403
        assert post(view, "/enroll", body, Content_Type="text/plain", **token)[0] == 415
        assert post(view, "/enroll", body, **token)[0] == 400, "admitted, but there is no frame"


def test_command_creates_the_file_and_reads_it_again(
    embedding_model: Model, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Check the whole way: the file is missing, is written by the page, and is used by the next run."""
    path, replies = tmp_path / "classes.json", []
    for name in ("2-green.png", "3-blue.png"):
        (photos / name).unlink()
    source = ["--source", str(photos), "--classes", str(path), "--threads", "1"]

    def serve(view: LiveView) -> None:
        deadline = time.monotonic() + 15
        while not replies and time.monotonic() < deadline:
            status, reply = post(view, "/enroll", {"serial": shown_now(view), "name": "rust"})
            replies.extend([reply] if status == 200 else [])

    class Watched(LiveView):
        def __enter__(self) -> "Watched":
            super().__enter__()
            threading.Thread(target=serve, args=(self,), daemon=True).start()
            return self

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdedge_runtime.server.live_view.LiveView", Watched)
        assert main([str(embedding_model.path), *source, "--loop", "--max-frames", "400", "--view", "0"]) == 0
    assert "does not exist yet" in capsys.readouterr().err
    assert replies == [{"name": "rust", "samples": 1}]
    assert main([str(embedding_model.path), *source, "--jsonl", str(tmp_path / "out.jsonl")]) == 0
    line = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert (line["label"], line["unknown"]) == ("rust", False) and line["similarity"] == pytest.approx(1, abs=1e-4)
