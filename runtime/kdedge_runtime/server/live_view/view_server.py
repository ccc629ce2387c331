"""Live view server: a sink that serves the run to browsers and collects feedback."""

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from importlib.resources import files
from types import TracebackType
from typing import Any, ClassVar, Self

from kdedge_runtime.errors import UsageError
from kdedge_runtime.feedback import FeedbackError, FeedbackStore, Verdict
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.server import (
    AccessPolicy,
    HttpServer,
    RequestHandler,
    StaticFile,
    read_static_files,
    shared_static_files,
)
from kdedge_runtime.server.live_view.broadcast import BOUNDARY, Broadcast
from kdedge_runtime.server.live_view.class_file import ClassFile
from kdedge_runtime.server.live_view.controls import Controls
from kdedge_runtime.server.live_view.latest_frame import LatestFrame
from kdedge_runtime.server.live_view.machine_state import MachineMonitor
from kdedge_runtime.server.live_view.pending_predictions import PendingPredictions
from kdedge_runtime.server.live_view.posted_values import optional_box, optional_text, whole_number
from kdedge_runtime.server.live_view.prometheus import CONTENT_TYPE, exposition
from kdedge_runtime.server.live_view.run_state import describe_machine, describe_prediction, describe_run
from kdedge_runtime.server.request_handler import TIMEOUT_S
from kdedge_runtime.sinks.json_lines import record
from kdedge_runtime.sources.source import PostedSource
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.arrays import Pixels
from kdedge_runtime.util.images import encode_jpeg

__all__ = ["Feedback", "LiveView"]

_log = logging.getLogger(__name__)
_MAX_VIEWERS = 64
_STREAM_BUFFER_BYTES = 128 * 1024
_JPEG_QUALITY = 90
_PAGE = {"/": "page.html"} | {f"/{name}": name for name in ("view.css", "view.js", "box.js")}
_PASSED = (
    "That frame is no longer available. Expected one of the latest frames, or one on hold. To hold a frame, press "
    "Pause on the page, or send POST /pause with its serial."
)


@dataclass(frozen=True)
class Feedback:
    """Destination of user feedback."""

    store: FeedbackStore
    model_sha256: str
    """SHA-256 of the model file."""

    @property
    def kept(self) -> int | None:
        """Number of stored entries; None if the store cannot be read (logged)."""
        try:
            return len(self.store)
        except FeedbackError:
            return None


class LiveView:
    """Sink that serves the run to browsers while it is entered.

    Its paths are listed in `.github/docs/reference/device-runtime.md`.
    """

    def __init__(
        self,
        policy: AccessPolicy,
        about: Mapping[str, str],
        controls: Controls,
        feedback: Feedback | None = None,
        *,
        class_file: ClassFile | None = None,
        tls: ssl.SSLContext | None = None,
        posted: PostedSource | None = None,
    ) -> None:
        """Create a view.

        Args:
            policy: address and access policy.
            about: description of the run, shown unchanged.
            controls: settings that the page may change.
            feedback: destination of feedback; None hides the feedback buttons.
            class_file: file of enrolled classes; None hides the enrollment.
            tls: certificate for HTTPS; None for HTTP.
            posted: source that takes samples of clients; None takes none.
        """
        self._policy = policy
        self._tls = tls
        self._site = _Site(dict(about), controls, feedback, class_file, posted)
        self._server: _ViewServer | None = None

    @property
    def wants_overlay(self) -> bool:
        """True if a client is watching and the next image is due."""
        return self._site.board.is_due

    @property
    def url(self) -> str:
        """URL of the page, including the token if required; only while entered."""
        if self._server is None:
            raise RuntimeError("the view has no URL before it is entered")
        return self._server.url

    def __enter__(self) -> Self:
        self._server = _ViewServer(self._policy, self._site, self._tls)
        self._server.start("kdedge-view")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._site.board.close()
        if self._site.pending is not None:
            self._site.pending.close()
        if self._server is not None:
            self._server.close()
            self._server = None

    def write(self, prediction: Prediction, progress: RunProgress) -> None:
        """Publish one prediction to the clients without blocking."""
        self._site.board.publish(prediction, progress)
        if self._site.pending is not None:
            self._site.pending.publish(prediction)


@dataclass
class _Site:
    """State shared by all clients of a view."""

    about: dict[str, str]
    controls: Controls
    feedback: Feedback | None
    class_file: ClassFile | None
    posted: PostedSource | None = None
    pending: PendingPredictions | None = field(init=False)
    board: LatestFrame = field(init=False)
    broadcast: Broadcast = field(init=False)
    machine: MachineMonitor = field(default_factory=MachineMonitor)
    viewers: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_MAX_VIEWERS))
    assets: dict[str, StaticFile] = field(
        default_factory=lambda: (
            shared_static_files() | read_static_files(files("kdedge_runtime.server.live_view"), _PAGE)
        )
    )

    def __post_init__(self) -> None:
        self.pending = None if self.posted is None else PendingPredictions(self.posted)
        self.board = LatestFrame(draw=None if self.posted is None else self._draw_posted)
        self.broadcast = Broadcast(self.board)

    def _draw_posted(self, prediction: Prediction) -> Pixels:
        renderer = prediction.input.renderer(moving=False, fps=None)
        renderer.update_scale(prediction)
        return renderer.render(prediction, self.controls.settings.opacity)

    def metrics(self, serial: int = 0, region: str | None = None) -> dict[str, Any]:
        """Return all statistics, JSON-compatible.

        Args:
            serial: serial number of the prediction; the latest if it is no longer available.
            region: name of the region; None for the first one.

        Raises:
            UsageError: the prediction has no such region.
        """
        board = self.board
        figures: dict[str, Any] = {
            "about": self.about,
            "viewers": board.viewers,
            "frames": 0,
            "controls": self.controls.figures(),
            "feedback": None if self.feedback is None else {"kept": self.feedback.kept},
            "can_enroll": self.class_file is not None,
            "revision": self.controls.revision,
            "machine": describe_machine(self.machine.state()),
            "history": [],
        }
        if (notice := board.newest) is not None:
            shown = board.shown.find(serial)
            figures |= (
                describe_prediction(notice.serial, notice.prediction, region)
                if shown is None
                else describe_prediction(serial, shown, region)
            )
            points = board.histories[figures["region"]].until(time.monotonic())
            figures["history"] = [(round(ago, 1), label, round(p, 3)) for ago, label, p in points]
            figures |= describe_run(notice.progress)
        return figures


class _ViewServer(HttpServer):
    def __init__(self, policy: AccessPolicy, site: _Site, tls: ssl.SSLContext | None) -> None:
        self.site = site
        super().__init__(policy, _ViewHandler, tls=tls)


class _ViewHandler(RequestHandler):
    server: _ViewServer
    open_paths: ClassVar[frozenset[str]] = frozenset({"/health"})

    def assets(self) -> Mapping[str, StaticFile]:
        return self.server.site.assets

    def gets(self) -> Mapping[str, Callable[[], None]]:
        return {
            "/snapshot.jpg": self._snapshot,
            "/stream.mjpg": self._stream,
            "/frame.jpg": self._frame,
            "/metrics.json": self._metrics,
            "/metrics": self._prometheus,
            "/choices.json": self._choices,
            "/health": self._health,
        }

    def posts(self) -> Mapping[str, Callable[[dict[str, Any]], object]]:
        return {
            "/controls": self._control,
            "/pause": self._pause,
            "/feedback": self._store_feedback,
            "/enroll": self._enroll,
            "/predict": self._predict,
        }

    def _metrics(self) -> None:
        serial = self._serial("serial", missing=0)
        self.send_json(HTTPStatus.OK, self.server.site.metrics(serial, self.query.get("region")))

    def _choices(self) -> None:
        controls = self.server.site.controls
        metadata = controls.model.metadata
        parts = {
            "sample_noun": metadata.input.sample_noun,
            "has_boxes": metadata.input.has_boxes,
            "has_overlay": metadata.input.has_overlay,
            "has_values": metadata.has_values,
            "map_legend": metadata.input.evidence_legend(has_values=metadata.has_values),
        }
        self.send_json(HTTPStatus.OK, {"labels": metadata.labels, "methods": controls.methods, **parts})

    def _prometheus(self) -> None:
        site = self.server.site
        newest = site.board.newest
        prediction, progress = (None, None) if newest is None else (newest.prediction, newest.progress)
        _, silence_s = site.board.health()
        text = exposition(site.about, prediction, progress, site.machine.state(), silence_s, site.board.viewers)
        self.send_body(HTTPStatus.OK, CONTENT_TYPE, text.encode())

    def _health(self) -> None:
        site = self.server.site
        healthy, silence_s = site.board.health()
        healthy |= site.posted is not None and not site.posted.waiting  # silence between requests is normal
        status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
        self.send_json(
            status, {"status": "ok" if healthy else "stalled", "seconds_since_prediction": round(silence_s, 3)}
        )

    def _snapshot(self) -> None:
        board = self.server.site.board
        after = self._serial("after", missing=0)
        if not self._begin_to_watch():
            return
        try:
            with board.watching():
                image = board.next_image(after, TIMEOUT_S)
        finally:
            self.server.site.viewers.release()
        if image is None:
            self.send_failure(HTTPStatus.SERVICE_UNAVAILABLE, "No image arrived in time.")
            return
        if after:
            board.renew_lease()
        self.send_body(HTTPStatus.OK, "image/jpeg", image.jpeg, {"X-Serial": str(image.serial)})

    def _stream(self) -> None:
        if not self._begin_to_watch():
            return
        try:
            # Short send buffer, because buffered images arrive late.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _STREAM_BUFFER_BYTES)
            self.begin(HTTPStatus.OK, f"multipart/x-mixed-replace; boundary={BOUNDARY}", {})
            if self.command != "HEAD":
                self.server.site.broadcast.serve(self.connection)
        finally:
            self.server.site.viewers.release()

    def _begin_to_watch(self) -> bool:
        if self.server.site.viewers.acquire(blocking=False):
            return True
        self.send_failure(HTTPStatus.SERVICE_UNAVAILABLE, f"The limit of {_MAX_VIEWERS} watching browsers is reached.")
        return False

    def _frame(self) -> None:
        prediction = self.server.site.board.shown.find(self._serial("serial"))
        if prediction is None:
            self.send_failure(HTTPStatus.GONE, _PASSED)
            return
        image = prediction.of_region(self.query.get("region")).image
        self.send_body(HTTPStatus.OK, "image/jpeg", encode_jpeg(image, _JPEG_QUALITY))

    def _serial(self, name: str, missing: int | None = None) -> int:
        """Return a serial number from the URL, or `missing` without one.

        Raises:
            UsageError: the number is invalid, or there is none.
        """
        text = self.query.get(name)
        if text is None and missing is not None:
            return missing
        if text is None or not (text.isascii() and text.isdecimal() and len(text) < 16):
            raise UsageError(f"Expected {name}=NUMBER in the URL.")
        return int(text)

    def _control(self, wanted: dict[str, Any]) -> object:
        site = self.server.site
        site.controls.change(wanted)
        return site.controls.figures()

    def _pause(self, wanted: dict[str, Any]) -> object:
        self._shown(wanted)  # a frame is not held for an unknown region
        serial = whole_number(wanted.get("serial"))
        prediction = self.server.site.board.shown.hold(serial)
        if prediction is None:
            raise UsageError(_PASSED)
        return describe_prediction(serial, prediction, optional_text("region", wanted.get("region")))

    def _store_feedback(self, body: dict[str, Any]) -> object:
        feedback = self.server.site.feedback
        if feedback is None:
            raise UsageError("This run does not store feedback. Start it with --feedback FILE.")
        prediction = self._shown(body)
        verdict = Verdict.of(
            prediction,
            body.get("judgment"),  # type: ignore[arg-type]  # checked by the verdict
            model_sha256=feedback.model_sha256,
            correct_label=optional_text("label", body.get("label")),
            box=optional_box(body.get("box")),
        )
        feedback.store.add(verdict)
        judgment = " ".join(filter(None, (verdict.judgment, verdict.correct_label)))
        _log.info("feedback: %s, predicted %s: %s", prediction.frame.name, prediction.label, judgment)
        return {"label": prediction.label, "kept": feedback.kept}

    def _enroll(self, body: dict[str, Any]) -> object:
        class_file = self.server.site.class_file
        if class_file is None:
            raise UsageError("This run has no enrolled classes. Start it with --classes FILE.")
        name = optional_text("name", body.get("name"))
        prediction = self._shown(body)
        enrolled = class_file.add(name or "", prediction)
        frame, samples = prediction.frame.name, enrolled.samples
        _log.info("enrolled: %s is %s (samples of this class: %d)", frame, enrolled.name, samples)
        return {"name": enrolled.name, "samples": enrolled.samples}

    def _predict(self, body: dict[str, Any]) -> object:
        """Return the prediction of a posted sample, as in a line of `--jsonl`."""
        pending = self.server.site.pending
        if pending is None:
            raise UsageError("This run takes no posted samples. Start a model of tables with --source http.")
        prediction = pending.predict(body, TIMEOUT_S)
        return record(prediction, time.monotonic() - prediction.frame.captured_at, datetime.now(UTC))

    def _shown(self, body: dict[str, Any]) -> Prediction:
        """Return the prediction for the frame and region of a request."""
        prediction = self.server.site.board.shown.find(whole_number(body.get("serial")))
        if prediction is None:
            raise UsageError(_PASSED)
        return prediction.of_region(optional_text("region", body.get("region")))
