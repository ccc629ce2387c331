"""Time series through every step of the product, from an archive's files and from recordings."""

import io
import json
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from series_scenes import LABELS, LENGTH, RATE_HZ, WIDTH, make_window, write_archive, write_recording

import kdedge
from kdedge.data import index_dataset
from kdedge.pipelines.training_pipeline import Run
from kdedge_runtime import Model
from kdedge_runtime.cli.main import main
from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.explainers import make_explainer
from kdedge_runtime.explainers.sample_files import explain_samples
from kdedge_runtime.feedback.class_folders import write_class_folders
from kdedge_runtime.feedback.verdict import Verdict
from kdedge_runtime.modalities.timeseries import TimeseriesInput
from kdedge_runtime.prediction import decode_prediction
from kdedge_runtime.server import AccessPolicy, Address
from kdedge_runtime.server.live_view import Controls, LiveView
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.stream.runner import run
from kdedge_runtime.stream.settings import LiveSettings

pytestmark = pytest.mark.usefixtures("operators_listed_once")
QUICK: dict[str, Any] = {"device": "cpu", "epochs": 12}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("bursts"), {"TRAIN": 120, "TEST": 60})


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return kdedge.train(data, "series:wide", output=tmp_path_factory.mktemp("runs") / "teacher", **QUICK)


@pytest.fixture(scope="module")
def files(teacher: Run, data: Path) -> Path:
    output = teacher.folder.parent / "student"
    recipe = output.parent / "recipe.toml"
    recipe.write_text("epochs = 12\nbatch_size = 16\n[loss]\nce = 0.1\nkd = 0.9\nmapall = 20\n")
    run = kdedge.distill(data, teacher, "series:small", output=output, recipe=str(recipe), device="cpu")
    assert run.record.result is not None
    kdedge.export(run, precisions=["int8"])
    return run.folder


def burst(label: int, seed: int) -> tuple[np.ndarray, int]:
    window, start = make_window(label, np.random.default_rng(seed))
    return window.astype(np.float32), start


def test_teacher_learns_on_its_own_statistics(teacher: Run) -> None:
    spec = teacher.record.input
    assert isinstance(spec, TimeseriesInput) and spec.shape == (LENGTH, 2)
    assert np.allclose(spec.mean, (3, -1), atol=0.02) and spec.rate_hz is None
    assert teacher.record.result is not None
    assert teacher.record.result["test"]["best"]["test_top1"] > 0.9


def test_student_is_distilled_with_maps(files: Path) -> None:
    record = json.loads((files / "run.json").read_text(encoding="utf-8"))
    test = record["result"]["test"]["best"]
    assert test["test_top1"] > 0.9 and test["test_map_pearson"] > 0.5


def test_student_learns_from_unlabeled_cases(teacher: Run, data: Path, tmp_path: Path) -> None:
    cases = str(data / "Bursts_TRAIN.ts")
    options: dict[str, Any] = {"samples_per_class": 2, "unlabeled": [cases], "epochs": 1, "device": "cpu"}
    run = kdedge.distill(data, teacher, "series:small", output=tmp_path / "run", **options)
    held_out = len(index_dataset(data).val)
    part = run.record.data["unlabeled"]
    assert part["samples"] == 120 - held_out - 2 * len(LABELS)


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_map_lies_on_the_channel_and_the_time_of_the_burst(files: Path, name: str) -> None:
    model = Model.load(files / name)
    in_channel, in_time = [], []
    for seed in range(12):
        label = 1 + seed % 2
        window, start = burst(label, seed)
        maps = model.predict(window[None], class_index=label).saliency_map
        assert maps is not None and maps.shape == (1, 2, LENGTH // 4)
        channel, at = np.unravel_index(maps[0].argmax(), maps[0].shape)
        in_channel.append(channel == label - 1)
        in_time.append(start - 4 <= 4 * at + 2 <= start + WIDTH + 4)
    assert np.mean(in_channel) > 0.9 and np.mean(in_time) > 0.9


def test_validation_compares_all_files(files: Path) -> None:
    validation = kdedge.validate(files)
    report = json.loads(validation.document.read_text(encoding="utf-8"))
    assert set(report["models"]) == {"teacher", "student", "fp32", "int8"}
    assert not [check.key for check in validation.report.checks if check.outcome == "failed"]
    assert validation.report.comparisons["fp32"].agreement == 1.0
    assert validation.report.faithfulness is not None
    rows = validation.report.faithfulness.rows
    assert rows["fp32"].deletion < rows["random"].deletion
    page = validation.page.read_text(encoding="utf-8")
    assert "amplitude" in page and "data:image/jpeg" in page


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_device_runs_the_cases_of_an_archive(files: Path, data: Path, name: str, tmp_path: Path) -> None:
    lines, plots = tmp_path / "lines.jsonl", tmp_path / "plots"
    source = str(data / "Bursts_TEST.ts")
    assert main([str(files / name), "--source", source, "--jsonl", str(lines), "-o", str(plots)]) == 0
    *predictions, summary = map(json.loads, lines.read_text(encoding="utf-8").splitlines())
    assert summary["summary"]["frames"] == len(predictions) == 60
    right = [line["label"] == LABELS[line["frame"] % 3] for line in predictions]
    assert np.mean(right) > 0.9
    with Image.open(min(plots.iterdir())) as plot:
        assert plot.size[0] == 640


@pytest.mark.parametrize("method", ["occlusion", "rise", "lime", "shap"])
def test_black_box_explainers_find_the_burst(files: Path, method: str) -> None:
    model, (window, start) = Model.load(files / "model.onnx"), burst(2, 3)
    estimate = make_explainer(model, method, segments=16 if method in ("lime", "shap") else None)(window, 2)
    side = estimate.map.reshape(2, -1, estimate.map.shape[1]).mean(axis=1)
    assert side[1].max() > side[0].max()
    place = side[1].argmax() / side.shape[1] * LENGTH
    assert start - WIDTH <= place <= start + 2 * WIDTH


def test_self_test_passes(files: Path) -> None:
    assert main(["self-test", str(files / "model.int8.onnx"), "--device", "generic"]) == 0


def test_file_teaches_a_student(files: Path, data: Path, tmp_path: Path) -> None:
    options = {"loss": "ce:0.1,kd:0.9,map:20", "epochs": 3, "device": "cpu"}
    run = kdedge.distill(data, files / "model.onnx", "series:small", output=tmp_path / "run", **options)  # type: ignore[arg-type]
    assert run.record.result is not None
    assert np.isfinite(run.record.result["best"]["val_map_pearson"])


def test_recordings_are_cut_trained_on_and_run(tmp_path: Path) -> None:
    for number in range(4):
        write_recording(tmp_path / "data" / f"day{number}.csv", [0, 1, 2, 0, 2, 1] * 2, seed=number)
    run = kdedge.train(
        tmp_path / "data", "series:small", output=tmp_path / "run", window="3.2s", epochs=2, device="cpu"
    )
    spec = run.record.input
    assert isinstance(spec, TimeseriesInput)
    assert (spec.channels, spec.units, spec.rate_hz) == (("left", "right"), ("g", "g"), RATE_HZ)
    assert spec.length == LENGTH and run.record.data["split"] == "recordings"
    kdedge.export(run)
    write_recording(tmp_path / "new.csv", [1, 2], seed=9, is_labeled=False)
    lines = tmp_path / "lines.jsonl"
    command = [str(tmp_path / "run" / "model.onnx"), "--source", str(tmp_path / "new.csv"), "--hop", "1.6s"]
    assert main([*command, "--jsonl", str(lines)]) == 0
    *predictions, _ = map(json.loads, lines.read_text(encoding="utf-8").splitlines())
    assert [(line["start"], line["end"]) for line in predictions] == [(0.0, 3.2), (1.6, 4.8), (3.2, 6.4)]


@pytest.mark.data
def test_small_network_learns_the_wrist_sensor(tmp_path: Path) -> None:
    archive = Path(__file__).parents[3] / "shared" / "data" / "series.zip"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path, [f"BasicMotions_{side}.ts" for side in ("TRAIN", "TEST")])
    run = kdedge.train(tmp_path, "series:small", output=tmp_path / "run", epochs=60, device="cpu")
    assert run.record.result is not None
    assert run.record.result["test"]["best"]["test_top1"] >= 0.9


def test_view_shows_the_last_window(files: Path, tmp_path: Path) -> None:
    recording = tmp_path / "new.csv"
    recording.write_text("".join(f"{left:.4f},{right:.4f}\n" for left, right in burst(1, 3)[0]))
    model, stop = Model.load(files / "model.onnx"), threading.Event()
    controls = Controls(model, LiveSettings(), None, None)
    policy = AccessPolicy.at(Address("127.0.0.1", 0))
    with (
        LiveView(policy, {"model": "m", "source": "s", "runtime": "r"}, controls) as view,
        model.metadata.input.open_source(str(recording), loop=True) as source,
        ThreadPoolExecutor() as pool,
    ):
        ran = pool.submit(run, model, source, [view], None, controls, stop)
        with urlopen(f"{view.url}snapshot.jpg", timeout=20) as answer:
            content = answer.read()
        stop.set()
        assert ran.result().frames
    with Image.open(io.BytesIO(content)) as shown:
        assert shown.size[0] == 640 and shown.size[1] > 480


def test_explanations_need_recordings(files: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(SourceError, match=r"no time series.*CSV") as refused:
        explain_samples(Model.load(files / "model.onnx"), [tmp_path / "a.wav"], tmp_path / "maps")
    assert "tail:" not in str(refused.value)


def test_corrections_become_training_data(files: Path, tmp_path: Path) -> None:
    model = Model.load(files / "model.onnx")
    verdicts = []
    for seed in range(4):
        window, _ = burst(1 + seed % 2, seed)
        prediction = decode_prediction(model, Frame(seed, window, 0.0, f"#{seed}"), model.predict(window[None]))
        verdicts.append(Verdict.of(prediction, "correct", model_sha256="0" * 64))
        with pytest.raises(UsageError, match="Boxes"):
            Verdict.of(prediction, "correct", model_sha256="0" * 64, box=(0.0, 0.0, 0.5, 0.5))
    write_class_folders(verdicts, tmp_path / "corrected")
    dataset = index_dataset(tmp_path / "corrected")
    assert dataset.modality == "timeseries" and set(dataset.labels) <= set(LABELS)
    read = [sample.read().values for split in (dataset.train, dataset.val) for sample in split.samples]
    windows = [burst(1 + seed % 2, seed)[0] for seed in range(4)]
    assert len(read) == 4 and all(any(np.array_equal(one, other) for other in windows) for one in read)
    explained = explain_samples(model, [tmp_path / "corrected"], tmp_path / "maps")
    assert {each.file for each in explained} == set((tmp_path / "corrected").rglob("*.csv"))
    assert {each.written.name for each in explained} == {f"{each.file.stem}-000000.png" for each in explained}
