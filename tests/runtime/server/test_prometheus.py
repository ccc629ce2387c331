"""Prometheus metrics, parsed by its own client."""

from dataclasses import replace

import pytest
from toy_predictions import in_regions
from view_client import Run, a_prediction, get

from kdedge_runtime.diagnostics.system_state import SystemState
from kdedge_runtime.server.live_view import LiveView
from kdedge_runtime.server.live_view.machine_state import MachineState
from kdedge_runtime.server.live_view.prometheus import exposition
from kdedge_runtime.stream.statistics import RunProgress

parser = pytest.importorskip("prometheus_client.parser", reason="needs prometheus_client")

SILENT = MachineState(SystemState(None, None, None, (), (), None), None)
HOT = MachineState(SystemState(81.5, 1500.0, 2400.0, ("throttled", "under-voltage"), (), 7), 123.456)


def _samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = list(parser.text_string_to_metric_families(text))
    assert all(family.documentation and family.type != "unknown" for family in families)
    samples = [sample for family in families for sample in family.samples]
    found = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
    assert len(found) == len(samples), "duplicate sample"
    return found


def test_all_metrics_use_base_units(progress: RunProgress) -> None:
    with progress.timer.measure("inference"):
        pass
    prediction = replace(a_prediction(0), ranking=(("an infant", 0.75),), explained="an infant")
    for _ in range(3):
        progress.count(prediction)
    samples = _samples(exposition({"model": 'a "b"\\c\nd'}, prediction, progress, HOT, 0.25, 2))
    assert samples["kdedge_info", (("model", 'a "b"\\c\nd'),)] == 1, "text is escaped"
    assert samples["kdedge_frames_total", ()] == 3
    assert samples["kdedge_predictions_total", (("label", "an infant"),)] == 3
    assert samples["kdedge_frame_age_seconds", ()] == pytest.approx(0.012)
    assert samples["kdedge_score", (("label", "an infant"),)] == 0.75
    assert samples["kdedge_seconds_since_prediction", ()] == 0.25
    assert samples["kdedge_viewers", ()] == 2
    assert samples["kdedge_frames_explained_total", ()] == 3
    assert samples["kdedge_temperature_celsius", ()] == 81.5
    assert samples["kdedge_clock_hertz", ()] == 1.5e9
    assert samples["kdedge_throttled", (("reason", "under-voltage"),)] == 1
    assert samples["kdedge_throttle_events_total", ()] == 7
    assert samples["process_resident_memory_bytes", ()] == pytest.approx(123_456_000)
    stage = progress.timer.stages()["inference"]
    assert samples["kdedge_stage_seconds_count", (("stage", "inference"),)] == 1
    assert samples["kdedge_stage_seconds_sum", (("stage", "inference"),)] == pytest.approx(stage.mean_ms / 1e3)
    assert samples["kdedge_stage_seconds", (("quantile", "0.95"), ("stage", "inference"))] == pytest.approx(
        stage.p95_ms / 1e3
    )


def test_unavailable_metrics_are_omitted(progress: RunProgress) -> None:
    for prediction in (None, a_prediction(0)):
        text = exposition({}, prediction, None if prediction is None else progress, SILENT, 0.0, 0)
        assert "temperature" not in text
        assert "throttled" not in text
        assert _samples(text)["kdedge_seconds_since_prediction", ()] == 0


def test_metrics_are_served_in_format_0_0_4(view: LiveView, progress: RunProgress) -> None:
    with Run(view, progress):
        counts = []
        for _ in range(5):
            response, body = get(view, "/metrics")
            counts.append(_samples(body.decode()).get(("kdedge_frames_total", ()), 0))
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert counts == sorted(counts)


def test_regions_are_a_label(progress: RunProgress) -> None:
    prediction = in_regions(a_prediction(0), door="open", window="shut")
    for _ in range(2):
        progress.count(prediction)
    samples = _samples(exposition({}, prediction, progress, SILENT, 0.25, 0))
    door, window = (("label", "open"), ("region", "door")), (("label", "shut"), ("region", "window"))
    assert samples["kdedge_frames_total", ()] == 2
    assert (samples["kdedge_predictions_total", door], samples["kdedge_predictions_total", window]) == (2, 2)
    assert (samples["kdedge_score", door], samples["kdedge_score", window]) == (0.75, 0.5)
    assert samples["kdedge_heat_area_ratio", (("explained", "tree"), ("region", "door"))] == 0.1
