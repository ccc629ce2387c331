"""Sounds go through every step: training, distillation with maps, export, validation, and the device."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from sound_toys import CLASSES, RATE_HZ, burst, write_bursts

import kdedge
from kdedge.pipelines.bundle_writer import write_bundle
from kdedge.pipelines.training_pipeline import Run
from kdedge.training.run_callback import RunCallback
from kdedge_runtime import Model
from kdedge_runtime.cli.main import main
from kdedge_runtime.explainers import make_explainer
from kdedge_runtime.modalities.audio import AudioInput

BANDS = 16
STEPS = {"epochs": 8, "device": "cpu", "size": BANDS, "batch_size": 16}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bursts(tmp_path_factory.mktemp("sounds"), {"train": 32, "val": 16})


@pytest.fixture(scope="module")
def teacher(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return kdedge.train(sounds, "resnet8", output=tmp_path_factory.mktemp("runs") / "teacher", **STEPS)


@pytest.fixture(scope="module")
def student(teacher: Run, sounds: Path) -> Run:
    output = teacher.folder.parent / "student"
    return kdedge.distill(sounds, teacher, "resnet10w8", output=output, output_stride=2, **STEPS)


@pytest.fixture(scope="module")
def files(student: Run, operators_listed_once: None) -> Path:
    kdedge.export(student, precisions=["fp16", "int8"])
    return student.folder


def test_input_comes_from_the_recordings(teacher: Run) -> None:
    spec = teacher.record.input
    assert isinstance(spec, AudioInput)
    assert (spec.rate_hz, spec.mel_bands) == (RATE_HZ, BANDS)
    assert spec.window_s == 1.0  # the shortest default window that is not shorter than the sounds


def test_plan_counts_windows_and_the_files_that_they_are_cut_from(tmp_path: Path) -> None:
    class Plan(RunCallback):
        def __init__(self) -> None:
            self.lines: dict[str, str] = {}

        def on_plan(self, lines: list[tuple[str, str]], terms: list[str], epochs: int, unit: str | None) -> None:
            self.lines |= dict(lines)

    rng = np.random.default_rng(0)
    for side, count in {"train": 3, "val": 1}.items():
        for label in CLASSES[:2]:
            (tmp_path / side / label).mkdir(parents=True)
            for number in range(count):
                sound = np.concatenate([burst(label, rng) for _ in range(4)])
                soundfile.write(tmp_path / side / label / f"{number}.wav", sound, RATE_HZ)
    for number in range(30):  # more than there are windows
        (tmp_path / "train" / CLASSES[0] / f"text{number}.wav").write_text("no sound")
    soundfile.write(tmp_path / "train" / CLASSES[0] / "short.wav", burst(CLASSES[0], rng), RATE_HZ)
    plan = Plan()
    options = {**STEPS, "epochs": 1, "window": "1s"}
    kdedge.train(tmp_path, "resnet8", output=tmp_path / "run", callback=plan, **options)
    assert plan.lines["samples"] == "25 for training, 8 for validation, 2 classes"
    assert plan.lines["windows"] == "32, cut from 8 files"


def test_networks_learn(teacher: Run, student: Run) -> None:
    assert teacher.record.result is not None and student.record.result is not None
    assert teacher.record.result["best"]["val_top1"] > 0.9
    best = student.record.result["best"]
    assert best["val_top1"] > 0.9 and best["val_map_pearson"] > 0.4
    assert set(student.record.recipe["loss"]) == {"ce", "kd", "mapall"}


def test_front_end_stays_in_float(files: Path) -> None:
    for name, kinds in (("model.int8.onnx", onnx.TensorProto.INT8), ("model.fp16.onnx", onnx.TensorProto.FLOAT16)):
        graph = onnx.load(files / name).graph
        weights = {each.name: each.data_type for each in graph.initializer}
        front = [kind for weight, kind in weights.items() if "front_end." in weight]
        assert len(front) >= 2 and set(front) == {onnx.TensorProto.FLOAT}
        assert kinds in weights.values()
        logs = [node for node in graph.node if node.op_type == "Log"]
        producers = {output: node for node in graph.node for output in node.output}
        above, seen = [*logs], set()
        while above:
            node = above.pop()
            seen.add(node.op_type)
            above += [producers[value] for value in node.input if value in producers]
        assert logs and not seen & {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "Cast"}


def test_validation_compares_all_files_and_counts_false_alarms(files: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    background = tmp_path / "background"
    background.mkdir()
    soundfile.write(background / "tone.wav", np.concatenate([burst("low", rng, at_s=0.5) for _ in range(6)]), RATE_HZ)
    soundfile.write(background / "short.wav", burst("low", rng)[:2_000], RATE_HZ)
    soundfile.write(background / "muted.wav", np.zeros(8 * RATE_HZ), RATE_HZ)  # no time in which anything was measured
    validation = kdedge.validate(files, quick=True, background=background, max_false_alarms=1.0)
    report, document = validation.report, json.loads(validation.document.read_text(encoding="utf-8"))
    assert set(document["models"]) == {"teacher", "student", "fp32", "fp16", "int8"}
    outcomes = {check.key: check.outcome for check in report.checks}
    failed = {key for key, outcome in outcomes.items() if outcome == "failed"}
    assert not {key for key in failed if key.startswith(("fp32", "fp16")) and "alarms" not in key}
    assert report.comparisons["fp32"].agreement == 1.0 and report.comparisons["int8"].agreement > 0.9
    assert "data:image/jpeg" in validation.page.read_text(encoding="utf-8")
    fp32, _, int8 = report.false_alarms
    assert (fp32.model, int8.model) == ("fp32", "int8") and len(document["false_alarms"]) == 3
    assert fp32.hours == pytest.approx(6.5 / 3600)
    assert fp32.alarms >= 3 and fp32.labels["low"] >= 3
    assert fp32.interval.low < fp32.per_hour == fp32.alarms / fp32.hours < fp32.interval.high
    assert outcomes["int8_false_alarms"] == "failed"


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_map_lies_at_the_time_and_pitch_of_the_sound(files: Path, name: str) -> None:
    model, rng = Model.load(files / name), np.random.default_rng(7)
    spec = model.metadata.input
    places = {}
    for label, other in (("low", "high"), ("high", "low")):
        sound = spec.preprocess(burst(label, rng, at_s=0.7))[None]
        mine, others = (model.predict(sound, CLASSES.index(each)).saliency_map for each in (label, other))
        assert mine is not None and others is not None
        contrast = np.abs(mine[0] - others[0])  # where the evidence for the two tones differs
        places[label], column = np.unravel_index(contrast.argmax(), contrast.shape)
        assert abs((column + 0.5) / contrast.shape[1] * spec.window_s - 0.7) < 0.2
    assert places["low"] < places["high"]  # the first band is the lowest


@pytest.mark.parametrize("method", ["occlusion", "rise", "lime", "shap"])
def test_black_box_explainers_find_the_sound(files: Path, method: str) -> None:
    model, rng = Model.load(files / "model.onnx"), np.random.default_rng(5)
    spec = model.metadata.input
    sound = spec.preprocess(burst("high", rng, at_s=0.3))
    segments = 20 if method in ("lime", "shap") else None
    estimate = make_explainer(model, method, segments=segments)(sound, CLASSES.index("high"))
    over_time = np.maximum(estimate.map, 0).sum(axis=0)
    assert abs(int(over_time.argmax()) / len(over_time) - 0.3) <= 0.15


def test_device_answers_with_times(files: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    recording = np.concatenate([burst("low", rng, at_s=0.5), burst("high", rng, at_s=0.5)])
    soundfile.write(tmp_path / "long.wav", recording, RATE_HZ)
    lines, drawn = tmp_path / "answers.jsonl", tmp_path / "drawn"
    options = ["--source", str(tmp_path / "long.wav"), "--jsonl", str(lines), "-o", str(drawn), "--hop", "0.5s"]
    assert main([str(files / "model.int8.onnx"), *options, "--no-unknown"]) == 0
    *answers, summary = map(json.loads, lines.read_text(encoding="utf-8").splitlines())
    assert summary["summary"]["frames"] == 3
    assert [(line["start"], line["end"]) for line in answers] == [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0)]
    assert answers[0]["label"] == "low" and answers[2]["label"] == "high"
    assert len(list(drawn.iterdir())) == 3
    first, last = answers[0]["heat"], answers[2]["heat"]
    assert last["cy"] < first["cy"]  # high tones are drawn above low ones


def test_suggested_source_is_a_microphone(files: Path, tmp_path: Path) -> None:
    assert write_bundle(files, tmp_path / "bundle.zip").example_source == "mic:"


def test_self_test_passes(files: Path) -> None:
    assert main(["self-test", str(files / "model.int8.onnx"), "--device", "generic"]) == 0
