"""Rows that are posted to the live view: the run predicts them, with its settings, and the client gets its line."""

import json
import math
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from table_toys import make_rows, write_table

import kdedge
from kdedge_runtime import Model, predict
from kdedge_runtime.cli.main import main
from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.explainers import MapEstimate, make_explainer
from kdedge_runtime.modalities.table_column import row_sample
from kdedge_runtime.server import AccessPolicy, Address
from kdedge_runtime.server.live_view import Controls, LiveView, view_server
from kdedge_runtime.server.live_view.pending_predictions import PendingPredictions
from kdedge_runtime.sinks.json_lines import JsonLinesFile
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.sources.tabular import posted_rows
from kdedge_runtime.sources.tabular.posted_rows import PostedRows
from kdedge_runtime.stream.runner import run
from kdedge_runtime.stream.schedule import ExplainSchedule
from kdedge_runtime.stream.settings import LiveSettings, StreamSettings

ROW = {"job": "clerk", "income": 9000, "age": 30, "city": "north", "noise": 0.5}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("posted")
    data = write_table(folder / "applicants.csv", make_rows(200))
    student = kdedge.train(data, "mlp:8", target="answer", output=folder / "run", epochs=2, device="cpu")
    kdedge.export(student)
    return student.folder / "model.onnx"


@dataclass
class Service:
    """Running live view of a model."""

    view: LiveView
    source: PostedRows
    lines: Path

    def post(self, values: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.view.url}predict", json.dumps(values).encode(), head, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def health(self) -> int:
        try:
            with urllib.request.urlopen(f"{self.view.url}health", timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    def written(self) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.lines.read_text().splitlines()) if "summary" not in line]


@contextmanager
def serving(
    model: Model,
    lines: Path,
    settings: StreamSettings | None = None,
    live: LiveSettings | None = None,
    *,
    runs: bool = True,
) -> Iterator[Service]:
    """Serve a model; without `runs`, the rows wait."""
    stop, live = threading.Event(), live or LiveSettings()
    source = model.metadata.input.open_source("http", stop=stop)
    assert isinstance(source, PostedRows)
    access = AccessPolicy.at(Address("127.0.0.1", 0), None)
    with (
        LiveView(access, {}, Controls(model, live), posted=source) as view,
        JsonLinesFile(str(lines), stop) as file,
        ThreadPoolExecutor(1) as thread,
    ):
        running = thread.submit(run, model, source, [view, file], settings, live, stop) if runs else None
        try:
            yield Service(view, source, lines)
        finally:
            stop.set()
        if running is not None:
            running.result()


def test_response_is_the_line_of_the_run(file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(Model.load(file), tmp_path / "lines.jsonl") as service:
        responses = [service.post(ROW), service.post(ROW | {"income": None, "city": "mars"})]
    assert [status for status, _ in responses] == [200, 200]
    found, written = [values for _, values in responses], service.written()
    for line in found + written:
        del line["time"]  # computed twice from the age, to the millisecond
    assert found == written
    assert [line["name"] for line in found] == ["row 1", "row 2"]
    reasons = {reason["column"]: reason["value"] for reason in found[0]["reasons"]}
    assert reasons["job"] == "clerk" and reasons["income"] == 9000
    assert "unseen" not in found[0] and found[1]["unseen"] == {"city": "mars"}
    assert any("'mars'" in message for message in caplog.messages)


def test_program_predicts_a_row_by_column_names(file: Path, tmp_path: Path) -> None:
    model = Model.load(file)
    with serving(model, tmp_path / "lines.jsonl") as service:
        _, line = service.post(ROW)
    prediction = predict(model, ROW)
    assert (prediction.label, prediction.score) == (line["label"], pytest.approx(line["p"], abs=1e-5))
    assert (prediction.reasons(), prediction.other_contributions(), prediction.unseen) == (
        line["reasons"],
        line["other"],
        {},
    )
    assert prediction.saliency_map is not None
    contributions = [reason["contribution"] for reason in prediction.reasons(2)]
    assert sum(contributions) + (prediction.other_contributions(2) or 0) == pytest.approx(
        float(prediction.saliency_map.sum()), abs=1e-4
    )
    assert prediction.other_contributions(2) != 0
    assert predict(model, ROW | {"city": "mars", "job": " "}).unseen == {"city": "mars"}
    with pytest.raises(UsageError, match="age"):
        predict(model, {name: value for name, value in ROW.items() if name != "age"})


def test_settings_of_the_run_apply(file: Path, tmp_path: Path) -> None:
    model = Model.load(file)
    assert model.metadata.familiarity is not None
    familiarity = replace(model.metadata.familiarity, threshold=math.inf)
    model = replace(model, metadata=replace(model.metadata, familiarity=familiarity))
    with serving(model, tmp_path / "lines.jsonl") as service:
        assert service.post(ROW)[1]["unknown"] is True
    settings = StreamSettings(unknown=False, cadence=ExplainSchedule.parse("every=2"))
    with serving(model, tmp_path / "lines.jsonl", settings) as service:
        first, second = (service.post(ROW)[1] for _ in range(2))
    assert first["unknown"] is False, "as with --no-unknown"
    assert first["explained"] == first["label"] and second["explained"] is None, "every second row is explained"


def test_rows_are_explained_by_the_method_of_the_run(file: Path, tmp_path: Path) -> None:
    model = Model.load(file)
    live = LiveSettings(class_index=1, explainer=make_explainer(model, "occlusion"))
    with serving(model, tmp_path / "lines.jsonl", live=live) as service:
        _, line = service.post(ROW)
    sample = model.metadata.input.preprocess(row_sample(tuple(ROW), tuple(map(str, ROW.values()))))
    expected = make_explainer(model, "occlusion")(sample, 1).map
    found = {reason["column"]: reason["contribution"] for reason in line["reasons"]}
    np.testing.assert_allclose([found[name] for name in model.metadata.input.column_names], expected[0], atol=1e-4)


def test_simultaneous_clients_get_their_own_rows(file: Path, tmp_path: Path) -> None:
    with serving(Model.load(file), tmp_path / "lines.jsonl") as service, ThreadPoolExecutor(8) as clients:
        incomes = list(range(1000, 1040))
        lines = [line for _, line in clients.map(lambda income: service.post(ROW | {"income": income}), incomes)]
    found = [next(one["value"] for one in line["reasons"] if one["column"] == "income") for line in lines]
    assert found == incomes and len({line["name"] for line in lines}) == 40


@pytest.mark.parametrize(
    ("values", "word"),
    [({"job": "clerk"}, "income"), (ROW | {"age": "old"}, "age"), (ROW | {"age": [1]}, "object")],
    ids=["missing column", "text for a number", "list"],
)
def test_invalid_rows_are_rejected(file: Path, tmp_path: Path, values: dict[str, Any], word: str) -> None:
    with serving(Model.load(file), tmp_path / "lines.jsonl", runs=False) as service:
        status, error = service.post(values)
        assert status == 400 and word in error["error"]
        assert service.source.unreadable == 1 and service.source.waiting == 0


def test_clients_are_released_when_the_run_ends(file: Path) -> None:
    source = Model.load(file).metadata.input.open_source("http")
    assert isinstance(source, PostedRows)
    pending = PendingPredictions(source)
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(pending.predict, ROW, 60.0)
        next(iter(source))  # waits for the row
        pending.close()
        with pytest.raises(SourceError, match="has ended"):
            waiting.result()
    with pytest.raises(SourceError, match="has ended"):
        pending.predict(ROW, 60.0)


def test_rows_beyond_the_limit_are_rejected(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posted_rows, "_MAX_WAITING", 0)
    with serving(Model.load(file), tmp_path / "lines.jsonl", runs=False) as service:
        assert service.post(ROW)[0] == 503 and service.source.dropped == 1


def test_row_without_a_prediction_in_time_is_withdrawn(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_server, "TIMEOUT_S", 0.05)
    with serving(Model.load(file), tmp_path / "lines.jsonl", runs=False) as service:
        assert service.post(ROW)[0] == 503
        assert service.source.waiting == 0 and service.source.dropped == 1


def test_overloaded_run_recovers(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, slow_s = Model.load(file), 0.05
    monkeypatch.setattr(view_server, "TIMEOUT_S", 10 * slow_s)
    fast = make_explainer(model, "occlusion")

    def explain(*sample: Any) -> MapEstimate:
        time.sleep(slow_s)
        return fast(*sample)

    with (
        serving(model, tmp_path / "lines.jsonl", live=LiveSettings(explainer=explain)) as service,
        ThreadPoolExecutor(24) as clients,
    ):
        waves = [[status for status, _ in clients.map(service.post, [ROW] * 24)] for _ in range(3)]
        assert all({200, 503} == set(wave) for wave in waves), waves


def test_slow_reading_does_not_block_the_run(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, started, released = PostedRows.read, threading.Event(), threading.Event()

    def slow_read(source: PostedRows, values: Mapping[str, Any]) -> Frame:
        if values["income"] == 1:
            started.set()
            assert released.wait(20)
        return read(source, values)

    monkeypatch.setattr(PostedRows, "read", slow_read)
    with serving(Model.load(file), tmp_path / "lines.jsonl") as service, ThreadPoolExecutor(1) as clients:
        slow = clients.submit(service.post, ROW | {"income": 1})
        assert started.wait(20)
        assert service.post(ROW)[0] == 200
        released.set()
        assert slow.result()[0] == 200


def test_silence_between_requests_is_healthy(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdedge_runtime.server.live_view.latest_frame.FRESH_S", 0.0)
    with serving(Model.load(file), tmp_path / "lines.jsonl", runs=False) as service:
        assert service.health() == 200
        service.source.add(service.source.read(ROW))
        assert service.health() == 503, "a row waits for the run"
        next(iter(service.source))
        assert service.health() == 200


def test_source_of_posted_rows_needs_a_view(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(file), "--source", "http"]) == 2
    assert "Add --view" in capfd.readouterr().err


def test_numbers_of_numpy_are_values(file: Path) -> None:
    model = Model.load(file)
    typed = ROW | {"income": np.float64(9000), "age": np.int64(30), "noise": np.float32(0.5)}
    assert predict(model, typed).ranking == predict(model, ROW).ranking
    for odd in (["clerk"], {1: 2}, np.zeros(3)):
        with pytest.raises((SourceError, UsageError)):
            predict(model, odd)  # type: ignore[arg-type]
