"""Open the model, source and sinks, run, and report: the commands `run` and `soak`."""

import argparse
import ctypes
import logging
import os
import shlex
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime as ort

from kdedge_runtime.cli.output_sinks import make_sinks
from kdedge_runtime.drawing.heatmap import OPACITY
from kdedge_runtime.errors import UsageError, ValidationFailed
from kdedge_runtime.modalities import Region
from kdedge_runtime.model import Model, available_providers
from kdedge_runtime.model_source import open_model
from kdedge_runtime.sources.source import PostedSource, Source
from kdedge_runtime.sources.timed_opening import open_with_timeout as opened_source
from kdedge_runtime.stream.runner import run, stopped_by_signals
from kdedge_runtime.stream.schedule import ExplainSchedule
from kdedge_runtime.stream.settings import LiveSettings, StreamSettings
from kdedge_runtime.stream.statistics import RunProgress, RunSummary
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.counts import counted, grid_text
from kdedge_runtime.util.files import file_sha256
from kdedge_runtime.util.printable import printable

if TYPE_CHECKING:
    import ssl

    from kdedge_runtime.diagnostics.soak_test import SoakTest
    from kdedge_runtime.explainers import Explainer
    from kdedge_runtime.server import AccessPolicy
    from kdedge_runtime.server.live_view import ClassFile, Controls, LiveView
    from kdedge_runtime.sinks.mqtt import MqttPublisher
    from kdedge_runtime.sinks.unknown_frames import UnknownFrames

__all__ = ["execute"]

_log = logging.getLogger(__name__)
_M_ARENA_MAX = -8
"""Value from glibc's malloc.h."""
_FEEDBACK_MB = 256.0
"""Maximum size of the feedback file in MB; the oldest entries are removed first."""


def execute(arguments: argparse.Namespace, soak_s: float | None = None) -> RunSummary:
    """Run a model on a source.

    Args:
        arguments: arguments parsed with the options of `kdedge_runtime.cli.run`.
        soak_s: duration of a soak test in seconds; None for a run without one.

    Raises:
        ValidationFailed: the soak test failed.
        KdedgeError: the model, the source or an output cannot be used. A source that fails after its first frame does
        not raise; see `RunSummary.failure`.
    """
    _share_one_heap()
    stop = threading.Event()
    with stopped_by_signals(stop), ExitStack() as opened:
        cadence = ExplainSchedule.parse(arguments.cadence)
        setup = _setup(arguments)
        arguments.source = arguments.source or setup.camera
        loaded = opened.enter_context(_model(arguments, setup))
        model = loaded if arguments.classes is None else _enrolled(arguments, loaded)
        explainer = _explainer(model, arguments)
        # A viewer can request explanations later.
        if not model.has_map and explainer is None and arguments.view is None:
            _refuse_idle(arguments)
        class_index = None
        if arguments.class_name is not None:
            class_index = model.class_index(arguments.class_name, by_explainer=explainer is not None)
        regions = model.metadata.input.parse_regions(arguments.crop) if arguments.crop else ()
        start_line = _start_line(model, setup, arguments.method)
        _log.info(start_line)
        live = LiveSettings(class_index, OPACITY if arguments.opacity is None else arguments.opacity, explainer)
        settings = StreamSettings(
            max_frames=arguments.max_frames,
            cadence=cadence,
            min_fps=arguments.min_fps,
            unknown=arguments.unknown,
            regions=regions,
            smooth_s=arguments.smooth,
            refractory_s=arguments.refractory,
        )
        with ExitStack() as stack:
            # Before the camera, because wrong credentials are found at once.
            broker = [] if arguments.mqtt is None else [stack.enter_context(_broker(arguments, model, regions))]
            source = model.metadata.input.open_source(
                arguments.source, arguments.frames, stop, loop=arguments.loop, hop_s=arguments.hop
            )
            if isinstance(source, PostedSource) and arguments.view is None:
                raise UsageError(f"--source {arguments.source} needs a live view that receives the rows. Add --view.")
            if not stack.enter_context(opened_source(source, stop)):
                _log.info("Stopped before %s opened.", source.name)
                return RunProgress(source).summary()
            suffix = model.metadata.input.sample_suffix
            sinks = [stack.enter_context(sink) for sink in make_sinks(arguments, source, stop, suffix)] + broker
            current: LiveSettings | Callable[[], LiveSettings] = live
            if arguments.record_unknown is not None:
                sinks.append(stack.enter_context(_unknown_frames(arguments, model)))
            if arguments.view is not None:
                current = controls = _controls(arguments, model, live)
                class_file = None if arguments.classes is None else _class_file(arguments, loaded, controls)
                view = stack.enter_context(_view(arguments, controls, source, start_line, stack, class_file))
                _log.info("view: %s", view.url)
                sinks.append(view)
            soak = None if soak_s is None else stack.enter_context(_soak(soak_s, stop))
            if soak is not None:
                sinks.append(soak)
            summary = run(model, source, sinks, settings, current, stop)
    _log.info(summary.table())
    if arguments.output and summary.frames:
        _log.info("written: %s", arguments.output)
    if model.has_map and explainer is None and summary.is_timed:
        # Not measured here, because that needs a second session and the memory of a second model.
        _log.info("To measure the latency that the map adds: kdedge-run bench %s", arguments.model)
    if soak is not None:
        _check_soak(soak, summary)
    return summary


def _share_one_heap() -> None:
    """Make all threads of this process share one heap if the C library is glibc.

    By default glibc gives each thread its own heap and keeps freed memory there: 5 MB of 102 MB for MobileNetV3-small.
    """
    if sys.platform.startswith("linux"):
        with suppress(AttributeError):  # other C libraries
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _model(arguments: argparse.Namespace, setup: "_Setup") -> AbstractContextManager[Model]:
    def load(path: Path) -> Model:
        return Model.load(path, threads=setup.threads, provider=setup.provider or "cpu", spinning=setup.spinning)

    return open_model(Path(arguments.model), load, arguments.require_signature, arguments.device or "auto")


def _enrolled(arguments: argparse.Namespace, model: Model) -> Model:
    """Return the model with the classes of --classes, or unchanged if the view will create their file."""
    from kdedge_runtime.enrolled_classes import EnrolledClasses

    path = Path(arguments.classes)
    if arguments.view is not None and not path.exists():
        EnrolledClasses.of_model(model)  # raises if the model has no embedding
        _log.info("%s does not exist yet. The classes of the model are used until one is enrolled in the view.", path)
        return model
    return EnrolledClasses.read(path, model).apply_to(model)


def _soak(duration_s: float, stop: threading.Event) -> "SoakTest":
    from kdedge_runtime.diagnostics.soak_test import SoakTest

    return SoakTest(duration_s, stop)


def _check_soak(soak: "SoakTest", summary: RunSummary) -> None:
    from kdedge_runtime.diagnostics.checklist import checklist

    checks = soak.checks()
    _log.info(checklist(checks))
    failed = [check.name for check in checks if check.passed is False]
    # A failed source causes the other failures, so it is reported instead.
    if failed and summary.failure is None:
        raise ValidationFailed(f"The soak failed: {', '.join(failed)}.")


@dataclass(frozen=True)
class _Setup:
    """Settings of onnxruntime, from the options or else the device profile."""

    threads: int | None
    provider: str | None
    """Requested provider, or None."""
    spinning: bool
    camera: str | None = None
    """Default source."""


def _setup(arguments: argparse.Namespace) -> _Setup:
    if arguments.device is None:
        return _Setup(arguments.threads, arguments.provider, spinning=False)
    from kdedge_runtime.devices.detection import find_profile

    profile = find_profile(arguments.device)
    if objection := profile.onnxruntime.objection(ort.__version__):
        _log.warning("%s: expected %s or later for %s", objection, profile.onnxruntime.minimum, profile.name)
    return _Setup(
        threads=arguments.threads or profile.threads,
        provider=arguments.provider or profile.onnxruntime.best_provider(available_providers()),
        spinning=profile.onnxruntime.spinning,
        camera=profile.camera,
    )


def _explainer(model: Model, arguments: argparse.Namespace) -> "Explainer | None":
    if arguments.method is None:
        if arguments.budget_ms is not None:
            raise UsageError("--budget-ms needs a --method. Add --method NAME, or remove --budget-ms.")
        return None
    from kdedge_runtime.explainers import make_explainer

    return make_explainer(model, arguments.method, budget_ms=arguments.budget_ms)


def _refuse_idle(arguments: argparse.Namespace) -> None:
    """Raise if options about explanations are given but the run produces none."""
    idle_options = {
        f"--cadence {arguments.cadence}": arguments.cadence != "always",
        f"--min-fps {arguments.min_fps or 0:g}": arguments.min_fps is not None,
        f"--opacity {arguments.opacity or 0:g}": arguments.opacity is not None,
    }
    for option, is_idle in idle_options.items():
        if is_idle:
            raise UsageError(
                f"{option} needs explanations, but {arguments.model} has no saliency map. Export it without --method "
                f"none, use a --method that needs no map in the file, or remove {option.split()[0]}."
            )


def _broker(arguments: argparse.Namespace, model: Model, regions: Sequence[Region]) -> "MqttPublisher":
    from kdedge_runtime.sinks.mqtt import BrokerAddress, MqttPublisher

    address = BrokerAddress.parse(arguments.mqtt, arguments.mqtt_ca)
    score_name = TASKS[model.metadata.task].score_name
    return MqttPublisher(address, model.path.name, [region.name for region in regions], score_name)


def _controls(arguments: argparse.Namespace, model: Model, live: LiveSettings) -> "Controls":
    from kdedge_runtime.server.live_view import Controls

    return Controls(model, live, arguments.method, arguments.budget_ms)


def _class_file(arguments: argparse.Namespace, loaded: Model, controls: "Controls") -> "ClassFile":
    from kdedge_runtime.server.live_view import ClassFile

    return ClassFile(Path(arguments.classes), loaded, controls)


def _view(
    arguments: argparse.Namespace,
    controls: "Controls",
    source: Source,
    start_line: str,
    stack: ExitStack,
    class_file: "ClassFile | None",
) -> "LiveView":
    # Imported on demand: a web server takes a third as long to load as onnxruntime.
    from kdedge_runtime.server import AccessPolicy, Address
    from kdedge_runtime.server.live_view import Feedback, LiveView
    from kdedge_runtime.sources.camera import without_password

    model = controls.model
    about = {
        "model": model.path.name,
        "source": without_password(source.name),
        "runtime": start_line,
    }
    secret = _secret_token()
    token = secret if arguments.token is None else arguments.token
    policy = AccessPolicy.at(Address.parse(arguments.view), token, is_printed=token != secret)
    tls = _tls(arguments.tls, policy)
    posted = source if isinstance(source, PostedSource) else None
    if arguments.feedback is None:
        return LiveView(policy, about, controls, class_file=class_file, tls=tls, posted=posted)
    from kdedge_runtime.feedback import FeedbackStore

    store = stack.enter_context(FeedbackStore.open(arguments.feedback, _FEEDBACK_MB))
    feedback = Feedback(store, file_sha256(model.path))
    return LiveView(policy, about, controls, feedback, class_file=class_file, tls=tls, posted=posted)


def _unknown_frames(arguments: argparse.Namespace, model: Model) -> "UnknownFrames":
    from kdedge_runtime.sinks.unknown_frames import UnknownFrames

    measured = model.metadata.familiarity
    if measured is not None and measured.threshold is None and model.prototypes is not None:
        command = shlex.join(["kdedge-run", "enroll", arguments.model, "--threshold", "T", "-o", arguments.classes])
        raise UsageError(
            f"--record-unknown needs a threshold, but {arguments.classes} has none, so that nothing is unknown. Set "
            f"one from -1 to 1 with `{command}`, or remove --record-unknown."
        )
    if measured is None or measured.threshold is None:
        raise UsageError(
            f"--record-unknown needs a familiarity threshold, but {model.path} has none. Export it again with at least "
            "59 validation samples of its classes, or remove --record-unknown."
        )
    if not arguments.unknown:
        raise UsageError("--record-unknown records nothing with --no-unknown. Remove one of the two options.")
    return UnknownFrames(arguments.record_unknown, _FEEDBACK_MB, file_sha256(model.path))


def _secret_token() -> str | None:
    """Return the token from $KDEDGE_TOKEN or from systemd's credential `kdedge-token`."""
    if token := os.environ.get("KDEDGE_TOKEN"):
        return token
    if folder := os.environ.get("CREDENTIALS_DIRECTORY"):
        with suppress(FileNotFoundError):
            return (Path(folder) / "kdedge-token").read_text(encoding="utf-8").strip()
    return None


def _tls(wanted: str | None, policy: "AccessPolicy") -> "ssl.SSLContext | None":
    """Return the TLS context for --tls: self-signed for an empty string, None for plain HTTP."""
    if wanted is None:
        if not policy.address.is_loopback:
            _log.warning("The view uses HTTP: its token and images cross the network unencrypted. Add --tls.")
        return None
    from kdedge_runtime.server.tls import self_signed_context, tls_context

    if wanted:
        return tls_context(Path(wanted), "--tls")
    tls, fingerprint = self_signed_context("--tls")
    _log.info("The certificate is self-signed, so browsers show a warning. SHA-256: %s", fingerprint)
    return tls


def _start_line(model: Model, setup: _Setup, method: str | None) -> str:
    spec, enrolled = model.metadata.input, "" if model.prototypes is None else "enrolled "
    labels, has_classes = model.metadata.labels, TASKS[model.metadata.task].has_classes
    parts = [
        f"onnxruntime {ort.__version__}",
        f"provider {model.provider.removesuffix('ExecutionProvider')} (requested: {setup.provider or 'none'})",
        (counted(setup.threads, "thread") if setup.threads else "all threads")
        + ", spinning" * (setup.spinning and setup.threads != 1),  # a single one waits for no other
        spec.summary,
        *([counted(len(labels), f"{enrolled}class", f"{enrolled}classes")] if has_classes else []),
        _number_format(model),
        _map(model, method),
    ]
    return printable(" · ".join(parts))


def _map(model: Model, method: str | None) -> str:
    if method is not None:
        return f"map by {method}"
    outputs = model.metadata.outputs
    size = grid_text(outputs.map_height, outputs.map_width)
    return f"map {size} {outputs.method}" if model.has_map else "no map"


def _number_format(model: Model) -> str:
    note = model.metadata.quantization or {}
    return f"{model.metadata.precision} {note['format']}" if "format" in note else model.metadata.precision
