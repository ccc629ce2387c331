"""Benchmark: variants, latency per layer, and no results on a throttled board."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kdedge_runtime.candidate import Candidate
from kdedge_runtime.cli.bench import precision_verdict
from kdedge_runtime.cli.main import main
from kdedge_runtime.devices import load_profile
from kdedge_runtime.diagnostics import benchmark
from kdedge_runtime.diagnostics.benchmark import BenchmarkResult, Timing, run_benchmark
from kdedge_runtime.diagnostics.system_state import SystemState, read_system_state
from kdedge_runtime.model import Model
from kdedge_runtime.precision import PRECISIONS, find_variants

CALM = SystemState(50.0, 1500.0, 1500.0, (), (), None)


def test_each_model_is_measured_with_and_without_its_map(model: Model) -> None:
    printed: list[tuple[str, int, int]] = []
    measured = run_benchmark(
        {Candidate.of_file(PRECISIONS[name], model.path): model for name in ("fp32", "int8")},
        runs=4,
        read_state=lambda: CALM,
        progress=lambda *of: printed.append(of),
    )
    assert [timing.name for timing in measured.timings] == ["fp32", "fp32 without map", "int8", "int8 without map"]
    for timing in measured.timings:
        assert 0 < timing.p25_ms <= timing.p50_ms <= timing.p75_ms
        assert 0 < timing.ratio_p25 <= timing.ratio <= timing.ratio_p75
    assert measured.timings[0].ratio == measured.timings[0].ratio_p25 == 1
    assert printed[-1] == ("measuring", 9, 9), "five warm-up rounds"


def test_model_without_map_has_one_variant(write_model: Callable[..., Path]) -> None:
    plain = Model.load(write_model(method="none"))
    measured = run_benchmark({Candidate.of(plain): plain}, runs=2, read_state=lambda: CALM)
    assert [timing.name for timing in measured.timings] == ["fp32"]


def test_unprunable_graph_is_measured_only_with_map(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(content: bytes, name: str) -> bytes:
        raise ValueError("a node contains a subgraph")

    monkeypatch.setattr("kdedge_runtime.diagnostics.benchmark.keep_output", refuse)
    measured = run_benchmark({Candidate.of(model): model}, runs=2, read_state=lambda: CALM)
    assert [timing.name for timing in measured.timings] == ["fp32"]
    assert "cannot be measured without its map: a node contains a subgraph" in caplog.text


def test_layer_shares_sum_to_one(model: Model) -> None:
    layers = run_benchmark({Candidate.of(model): model}, runs=2, read_state=lambda: CALM).layers
    assert {"Conv", "MatMul", "ArgMax"} <= {layer.operator for layer in layers}
    assert sum(layer.share for layer in layers) == pytest.approx(1)
    assert [layer.mean_ms for layer in layers] == sorted((layer.mean_ms for layer in layers), reverse=True)


@pytest.mark.parametrize(
    "later",
    [
        replace(CALM, throttled=("under-voltage",)),
        replace(CALM, throttled_since_boot=("throttled",)),
        replace(CALM, throttle_events=1),
    ],
)
def test_throttling_during_measurement_discards_timings(model: Model, later: SystemState) -> None:
    looks = iter([CALM, CALM, later])
    measured = run_benchmark({Candidate.of(model): model}, runs=3, read_state=lambda: next(looks, CALM))
    assert measured.throttling and not measured.timings and not measured.layers


def test_earlier_throttling_is_ignored(model: Model) -> None:
    before = replace(CALM, throttled_since_boot=("under-voltage",), throttle_events=7)
    measured = run_benchmark({Candidate.of(model): model}, runs=2, read_state=lambda: before)
    assert measured.timings and not measured.throttling
    assert "since boot: under-voltage" in measured.table()


def test_json_and_table_agree(model: Model) -> None:
    measured = run_benchmark({Candidate.of(model): model}, runs=2, read_state=lambda: CALM)
    record = json.loads(measured.to_json())
    assert record["before"]["temperature_c"] == 50 and record["throttling"] == []
    assert record["timings"][1]["name"] == "fp32 without map"
    table = measured.table()
    assert "50 °C, 1500 of 1500 MHz" in table
    assert f"{measured.timings[1].p50_ms:.2f}" in table and measured.layers[0].name in table


@pytest.mark.parametrize(
    ("device", "ratio", "verdict"),
    [
        ("raspberry-pi-5", 0.5, "0.50 of fp32's time here, as the profile raspberry-pi-5 expects: use the int8 file."),
        ("raspberry-pi-5", 1.3, "here, unlike the profile raspberry-pi-5 expects: use the fp32 file."),
        ("raspberry-pi-4", 1.3, "here, as the profile raspberry-pi-4 expects: use the fp32 file."),
        ("raspberry-pi-4", 0.97, "use the fp32 file."),
        ("generic", 0.5, "0.50 of fp32's time here: use the int8 file."),
    ],
)
def test_precision_verdict_compares_with_profile(device: str, ratio: float, verdict: str) -> None:
    def timing(name: str, ratio: float) -> Timing:
        return Timing(name, 10 * ratio, 9 * ratio, 11 * ratio, ratio, ratio, ratio)

    profile = load_profile(device)
    both = BenchmarkResult((), CALM, CALM, (timing("fp32", 1.0), timing("int8", ratio)))
    assert (precision_verdict(both, profile) or "").endswith(verdict)
    other_way_round = BenchmarkResult((), CALM, CALM, (timing("int8", 1.0), timing("fp32", 1 / ratio)))
    assert precision_verdict(other_way_round, profile) == precision_verdict(both, profile)
    assert precision_verdict(BenchmarkResult((), CALM, CALM, (timing("fp32", 1.0),)), profile) is None


@pytest.mark.parametrize(
    ("fp16", "int8", "chosen"), [(1.2, 0.5, "int8"), (0.6, 0.58, "fp16"), (0.6, 1.1, "fp16"), (0.97, 0.97, "fp32")]
)
def test_verdict_names_every_precision(fp16: float, int8: float, chosen: str) -> None:
    timings = (Timing(name, *(ratio,) * 6) for name, ratio in (("fp32", 1.0), ("fp16", fp16), ("int8", int8)))
    verdict = precision_verdict(BenchmarkResult((), CALM, CALM, tuple(timings)), load_profile("raspberry-pi-5")) or ""
    assert verdict.endswith(f"use the {chosen} file.")
    assert f"fp16 takes {fp16:.2f} of fp32's time here; int8 takes {int8:.2f} of" in verdict
    assert verdict.count("the profile raspberry-pi-5 expects") == 1, "it says nothing about fp16"


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("model.onnx", "model.int8.onnx"),
        ("model.int8.onnx", "model.onnx"),
        ("a.b.onnx", "a.b.int8.onnx"),
    ],
)
def test_companion_file_is_found(tmp_path: Path, name: str, other: str) -> None:
    (tmp_path / name).touch()
    assert find_variants(tmp_path / name) == ()
    (tmp_path / other).touch()
    assert find_variants(tmp_path / name) == (tmp_path / other,)


def test_bench_prints_table_or_json(
    tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(model_path, tmp_path / "model.onnx")
    monkeypatch.setattr(benchmark, "run_benchmark", partial(run_benchmark, runs=2))
    assert main(["bench", str(tmp_path / "model.onnx"), "--threads", "1", "--device", "generic"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("model.onnx\ngeneric, onnxruntime ") and "1 thread, batch size 1" in printed
    assert main(["bench", str(tmp_path / "model.onnx"), "--json"]) == 0
    assert {timing["name"] for timing in json.loads(capsys.readouterr().out)["timings"]} == {"fp32", "fp32 without map"}


def test_bench_fails_on_throttled_board(
    tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled"
    flags.parent.mkdir(parents=True)
    flags.write_text("50005\n")

    def on_the_fake_board(models: dict[Candidate, Model], **settings: object) -> BenchmarkResult:
        return run_benchmark(models, runs=2, read_state=lambda: read_system_state(tmp_path))

    monkeypatch.setattr(benchmark, "run_benchmark", on_the_fake_board)
    assert main(["bench", str(model_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "was throttled during the measurement (under-voltage, throttled)" in printed.err
