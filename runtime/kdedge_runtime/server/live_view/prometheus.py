"""Metrics in Prometheus' text format, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable, Mapping

from kdedge_runtime.prediction import Prediction
from kdedge_runtime.server.live_view.machine_state import MachineState
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.tasks import TASKS

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MetricSample = tuple[str, Mapping[str, str], float]


def exposition(
    about: Mapping[str, str],
    prediction: Prediction | None,
    progress: RunProgress | None,
    machine: MachineState,
    silence_s: float,
    viewers: int,
) -> str:
    """Return all metrics, in seconds, degrees Celsius and bytes.

    Args:
        about: labels that describe the run.
        prediction: latest prediction, or None before the first.
        progress: counters of the run, or None before the first prediction.
        machine: machine state.
        silence_s: seconds since the last prediction, or since the start.
        viewers: number of watching clients.
    """
    families = [
        _family("kdedge_info", "gauge", "Description of the run.", [("", about, 1)]),
        _family("kdedge_seconds_since_prediction", "gauge", "Time since the latest prediction.", [("", {}, silence_s)]),
        _family("kdedge_viewers", "gauge", "Number of watching clients.", [("", {}, viewers)]),
        _machine(machine),
    ]
    if prediction is not None and progress is not None:
        families += [_counters(progress), _prediction(prediction, progress), _stages(progress)]
    return "".join(families)


def _counters(progress: RunProgress) -> str:
    predictions: list[MetricSample] = [
        ("", _region(region) | {"label": label}, count) for (region, label), count in progress.labels.copy().items()
    ]
    return "".join(
        [
            _counter("kdedge_frames", "Frames predicted.", progress.frames),
            _counter("kdedge_frames_dropped", "Frames that passed while the model was busy.", progress.dropped),
            _counter("kdedge_frames_explained", "Frames with a map.", progress.explained),
            _counter("kdedge_reconnects", "Times that the source failed and recovered.", progress.reconnects),
            _counter("kdedge_frames_unreadable", "Frames that could not be decoded.", progress.unreadable),
            _family("kdedge_predictions_total", "counter", "Frames by predicted label.", predictions),
            _counter("kdedge_unknown", "Frames or regions that belong to no known class.", progress.unknown),
        ]
    )


def _prediction(prediction: Prediction, progress: RunProgress) -> str:
    name = TASKS[prediction.task].score_name
    families = [
        _family(
            "kdedge_frames_per_second", "gauge", "Frame rate over the latest frames.", [("", {}, progress.recent_fps)]
        ),
        _family(
            "kdedge_frame_age_seconds", "gauge", "Time from capture to prediction.", [("", {}, prediction.age_ms / 1e3)]
        ),
        _family(
            "kdedge_score",
            "gauge",
            f"{name.capitalize()} of the latest prediction.",
            [
                ("", _region(each.region_name) | {"label": each.label}, each.score)
                for each in prediction.by_region
                if each.share is not None
            ],
        ),
        _family(
            "kdedge_familiarity",
            "gauge",
            "Similarity of the latest frame to the training samples.",
            [
                ("", _region(each.region_name), each.familiarity)
                for each in prediction.by_region
                if each.familiarity is not None
            ],
        ),
    ]
    area: list[MetricSample] = [
        ("", _region(each.region_name) | {"explained": each.explained}, each.heat.area)
        for each in prediction.by_region
        if each.heat is not None
    ]
    if area:
        families.append(_family("kdedge_heat_area_ratio", "gauge", "Share of the map above half of its maximum.", area))
    return "".join(families)


def _region(name: str | None) -> dict[str, str]:
    """Return the label of a region; none for the whole frame."""
    return {} if name is None else {"region": name}


def _stages(progress: RunProgress) -> str:
    samples: list[MetricSample] = []
    for name, stage in progress.timer.stages().items():
        samples += [
            ("", {"stage": name, "quantile": "0.5"}, stage.p50_ms / 1e3),
            ("", {"stage": name, "quantile": "0.95"}, stage.p95_ms / 1e3),
            ("", {"stage": name, "quantile": "0.99"}, stage.p99_ms / 1e3),
            ("_sum", {"stage": name}, stage.mean_ms * stage.count / 1e3),
            ("_count", {"stage": name}, stage.count),
        ]
    return _family("kdedge_stage_seconds", "summary", "Latency of each stage of a frame.", samples)


def _machine(machine: MachineState) -> str:
    board = machine.board
    gauges = [
        ("kdedge_temperature_celsius", "Temperature of the hottest CPU sensor.", board.temperature_c, 1.0),
        ("kdedge_clock_hertz", "Clock frequency of the slowest core.", board.clock_mhz, 1e6),
        ("process_resident_memory_bytes", "Resident memory.", machine.memory_mb, 1e6),
    ]
    families = [
        _family(name, "gauge", text, [("", {}, value * unit)])
        for name, text, value, unit in gauges
        if value is not None
    ]
    throttled: list[MetricSample] = [("", {"reason": reason}, 1.0) for reason in board.throttled]
    families.append(_family("kdedge_throttled", "gauge", "Active throttling reasons.", throttled))
    if board.throttle_events is not None:
        families.append(
            _counter("kdedge_throttle_events", "Throttling events of x86 cores since boot.", board.throttle_events)
        )
    return "".join(families)


def _counter(name: str, text: str, value: float) -> str:
    return _family(f"{name}_total", "counter", text, [("", {}, value)])


def _family(name: str, kind: str, text: str, samples: Iterable[MetricSample]) -> str:
    lines = [f"{name}{suffix}{_labels(labels)} {float(value)!r}" for suffix, labels, value in samples]
    return "\n".join([f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines, ""]) if lines else ""


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
