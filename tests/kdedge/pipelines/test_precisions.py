"""Precisions from end to end: export, validation, benchmark, bundle and self-test of every file of a trained run."""

import json
import shutil
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from jsonschema import Draft202012Validator
from onnx import numpy_helper
from torch import nn
from training_toys import Outcome

from kdedge.cli.validate import _print_validation
from kdedge.models.artifacts import Artifacts
from kdedge.models.trained_model import load_trained
from kdedge.pipelines.bundle_writer import write_bundle
from kdedge.pipelines.calibration_samples import calibration_samples
from kdedge.pipelines.model_export import export_model
from kdedge.pipelines.model_validation import Validation, validate_model
from kdedge_export.file_quantization import quantize
from kdedge_export.quantization import RECIPES, ConversionInputs, ConvertedGraph, FidelityGoal, PrecisionRecipe
from kdedge_export.validation import json_schema
from kdedge_runtime import Model
from kdedge_runtime.bundle import load_fastest, open_bundle
from kdedge_runtime.devices import load_profile
from kdedge_runtime.errors import UsageError
from kdedge_runtime.explainers import make_explainer
from kdedge_runtime.precision import PRECISIONS, Precision, variant_path

Command = Callable[..., Outcome]
GENERIC = load_profile("generic")
FIELDS = {
    "accuracy_drop",
    "divergence",
    "logits_distance",
    "map_pearson_mean",
    "map_pearson_p5",
    "map_scale_error",
    "other_map_pearson",
    "default_class",
    "labels",
    "input",
    "map_similarity_class",
    "map_similarity_sample",
}


@pytest.fixture(scope="module")
def validation(exported_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Validation:
    """Report of `exported_run` with an fp16 file besides fp32 and int8; read-only."""
    folder = tmp_path_factory.mktemp("precisions") / "student"
    shutil.copytree(exported_run, folder)
    result = export_model(str(folder), precisions=["fp16"], profile=GENERIC)
    assert result.quantized["fp16"].path == folder / "model.fp16.onnx" and result.removed == ()
    return validate_model(str(folder), quick=True)


@pytest.fixture(scope="module")
def half_run(validation: Validation) -> Path:
    """Run folder of `validation`; read-only."""
    return validation.fp32.parent


def images(n: int, seed: int, model: Model) -> np.ndarray:
    spec = model.metadata.input
    return np.random.default_rng(seed).integers(0, 256, (n, spec.height, spec.width, 3), dtype=np.uint8)


def test_fp16_file_of_a_run_agrees_with_fp32(half_run: Path) -> None:
    fp32, fp16 = (Model.load(half_run / name) for name in ("model.onnx", "model.fp16.onnx"))
    assert fp16.path.stat().st_size < 0.75 * fp32.path.stat().st_size
    assert fp16.metadata.lineage == fp32.metadata.lineage and fp16.metadata.temperature == fp32.metadata.temperature
    found = []
    for count, seed in ((1, 1), (4, 2)):
        exact, rounded = (model.predict(images(count, seed, model)) for model in (fp32, fp16))
        assert exact.saliency_map is not None and rounded.saliency_map is not None
        assert np.abs(exact.logits - rounded.logits).max() < 0.01 * np.ptp(exact.logits)
        assert np.corrcoef(exact.saliency_map.ravel(), rounded.saliency_map.ravel())[0, 1] > 0.9999
        found.append(rounded.logits[0])
    assert np.abs(found[0] - found[1]).max() > 0


def test_every_precision_has_the_same_checks_and_matches_the_schema(half_run: Path) -> None:
    document = json.loads((half_run / "report/report.json").read_text("utf-8"))
    Draft202012Validator(json_schema()).validate(document)
    assert list(document["models"]) == ["teacher", "student", "fp32", "fp16", "int8"]
    assert [facts["precision"] for facts in document["models"].values()] == [None, None, "fp32", "fp16", "int8"]
    assert {name: found["reference"] for name, found in document["comparisons"].items()} == {
        "student": "teacher",
        "fp32": "student",
        "fp16": "student",
        "int8": "student",
    }
    assert list(document["footprints"]) == ["fp32", "fp16", "int8"]
    checks = {check["key"]: check for check in document["checks"]}
    for name in ("fp16", "int8"):
        measured = {
            field for field in FIELDS if checks.get(f"{name}_{field}", {"measured": None})["measured"] is not None
        }
        assert measured == FIELDS, name
        for field in FIELDS & set(vars(RECIPES[name].bounds)):
            assert checks[f"{name}_{field}"]["bound"] == getattr(RECIPES[name].bounds, field)
    assert document["models"]["fp16"]["arithmetic"] is None
    assert document["models"]["int8"]["arithmetic"] == "exact sums"
    page = (half_run / "report/report.html").read_text("utf-8")
    assert "ONNX, fp16" in page and "Quantization: ONNX, fp16" in page and "Quantization: ONNX, int8" in page


def test_bench_and_self_test_take_every_precision(command: Command, half_run: Path) -> None:
    done = command("bench", half_run / "model.fp16.onnx", "--threads", "1", "--json")
    assert done.code == 0, done.err
    names = [timing["name"] for timing in json.loads(done.out)["timings"]]
    assert names == [f"{name}{variant}" for name in ("fp16", "fp32", "int8") for variant in ("", " without map")]
    done = command("run", "self-test", half_run / "model.fp16.onnx", "--device", "generic")
    assert done.code == 0 and done.out.count("[✓]") == 6, done.out


@pytest.mark.parametrize(
    ("latencies", "name"),
    [((9.0, 5.0, 8.0), "fp16"), ((9.0, 9.0, 8.0), "int8"), ((9.0, 9.5, 8.9), "fp32"), ((9.0, 5.0, 4.9), "fp16")],
)
def test_validation_ends_with_the_file_to_run_here(
    validation: Validation, latencies: tuple[float, ...], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = validation.report
    footprints = {
        role: replace(footprint, latency_ms=latency)
        for (role, footprint), latency in zip(report.footprints.items(), latencies, strict=True)
    }
    checks = tuple(check for check in report.checks if check.passed)
    passed = replace(validation, report=replace(report, checks=checks, footprints=footprints))
    _print_validation(passed)
    assert passed.fastest == variant_path(validation.fp32, PRECISIONS[name])
    assert f"Next: kdedge run {passed.fastest} --source" in capsys.readouterr().err


def test_bundle_carries_every_precision_and_runs_the_fastest(half_run: Path, tmp_path: Path) -> None:
    summary = write_bundle(half_run, tmp_path / "bundle.zip")
    assert summary.models == ("model.onnx", "model.fp16.onnx", "model.int8.onnx")
    with open_bundle(summary.path) as files:
        for latencies, name in (((9.0, 5.0, 8.0), "fp16"), ((9.0, 9.0, 8.0), "int8"), ((9.0, 9.5, 9.9), "fp32")):
            chosen = load_fastest(files, Model.load, lambda *_, latencies=latencies: latencies)
            assert chosen.metadata.precision == name
    single = write_bundle(half_run / "model.fp16.onnx", tmp_path / "single.zip")
    with zipfile.ZipFile(single.path) as archive:
        assert sorted(archive.namelist()) == ["SHA256SUMS", "bundle.json", "model.fp16.onnx"]


def test_fp16_file_can_be_inspected_and_explained(command: Command, half_run: Path, tmp_path: Path) -> None:
    done = command("inspect", half_run / "model.fp16.onnx", "-o", tmp_path / "page.html")
    assert done.code == 0 and "Conv" in done.out, done.err
    fp32, fp16 = (Model.load(half_run / name) for name in ("model.onnx", "model.fp16.onnx"))
    picture = images(1, 3, fp32)[0]
    maps = [make_explainer(model, "scorecam")(picture, 0).map for model in (fp32, fp16)]
    assert maps[1].dtype == np.float32
    assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > 0.99


def test_fp32_export_removes_files_of_another_model(half_run: Path, teacher_run: Path, tmp_path: Path) -> None:
    for suffix in ("onnx", "fp16.onnx", "int8.onnx"):
        shutil.copy(half_run / f"model.{suffix}", tmp_path / f"m.{suffix}")
    result = export_model(str(half_run), output=tmp_path / "m.onnx", profile=GENERIC)
    assert result.removed == () and (tmp_path / "m.fp16.onnx").is_file() and (tmp_path / "m.int8.onnx").is_file()
    result = export_model(str(teacher_run), output=tmp_path / "m.onnx", precisions=["fp16"], profile=GENERIC)
    assert result.removed == (tmp_path / "m.int8.onnx",)
    assert Model.load(tmp_path / "m.fp16.onnx").metadata.lineage == result.metadata.lineage


def test_file_with_a_wrong_precision_is_rejected(half_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(half_run, tmp_path / "run"))
    shutil.copy(run / "model.int8.onnx", run / "model.fp16.onnx")
    with pytest.raises(UsageError, match=r"model\.fp16\.onnx has the precision int8, not fp16"):
        validate_model(str(run))


@pytest.mark.parametrize("precisions", [["fp16", "int8"], ["fp16"]])
def test_fp16_takes_the_calibration_images_of_the_command(
    exported_run: Path, scenes: Path, tmp_path: Path, precisions: list[str]
) -> None:
    data = str(scenes) if precisions == ["fp16"] else None
    output = tmp_path / "m.onnx"
    result = export_model(str(exported_run), output=output, precisions=precisions, data=data, profile=GENERIC)
    trained = load_trained(Artifacts.open(str(exported_run)))
    sets = calibration_samples(Artifacts.open(str(exported_run)), trained, str(scenes), lambda *_: None).sets
    path = tmp_path / "api.fp16.onnx"
    called = quantize(output, sets.calibration, sets.held_out, precision="fp16", output=path)
    notes = [dict(file.note) for file in (result.quantized["fp16"], called)]
    assert notes[0].pop("latency_ms").keys() == notes[1].pop("latency_ms").keys()
    assert notes[0] == notes[1] and notes[0]["calibration_samples"] == len(sets.calibration)
    assert onnx.load(tmp_path / "m.fp16.onnx").graph == onnx.load(path).graph


def test_command_writes_the_named_precisions(command: Command, exported_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    done = command("export", exported_run, "-o", output, "--precision", "fp16", "--quantize", "--precision", "fp16")
    assert done.code == 0, done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.fp16.onnx", "m.int8.onnx", "m.onnx"]
    assert all(f"ms, {name} " in done.err for name in ("fp16", "int8"))
    names = ", ".join(name for name in PRECISIONS if name != "fp32")
    for options, complaint in (
        (("--precision", "fp32"), f"'fp32' is not one of {names}"),
        (("--precision", "fp16", "--max-drop", "1"), "--max-drop 1.0 needs --quantize"),
    ):
        done = command("export", exported_run, "-o", tmp_path / "n.onnx", *options)
        assert done.code == 2 and complaint in done.err
    (tmp_path / "other.onnx").write_bytes(b"of another model")
    for options in ((), ("--quantize",)):
        done = command("export", exported_run, "-o", tmp_path / "other.int8.onnx", *options)
        assert done.code == 2 and "Name it other.onnx" in done.err
    assert (tmp_path / "other.onnx").read_bytes() == b"of another model"
    with pytest.raises(UsageError, match="can meet a goal"):
        export_model(str(exported_run), precisions=["fp16"], goal=FidelityGoal(max_drop=1.0), profile=GENERIC)


class Small(nn.Module):
    """Network of another framework."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x).mean((2, 3)))


def test_foreign_file_is_converted_without_images_and_validated(command: Command, scenes: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs, ours = tmp_path / "theirs.onnx", tmp_path / "ours.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dynamic = {"x": {0: "batch"}, "y": {0: "batch"}}
        example = (torch.randn(2, 3, 32, 32),)
        names = {"input_names": ["x"], "output_names": ["y"]}
        options = {"dynamo": False, "dynamic_axes": dynamic, "keep_initializers_as_inputs": True}
        torch.onnx.export(Small().eval(), example, theirs, **options, **names)  # type: ignore[arg-type]
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(sorted(path.name for path in (scenes / "val").iterdir())))
    front = ("--mean", "0.5", "--std", "0.5", "--labels", labels)
    done = command("export", theirs, "-o", ours, *front, "--precision", "fp16")
    assert done.code == 0, done.err
    fp32, fp16 = Model.load(ours), Model.load(tmp_path / "ours.fp16.onnx")
    for count, seed in ((1, 1), (4, 2)):
        exact, rounded = (model.predict(images(count, seed, model), 1) for model in (fp32, fp16))
        assert exact.saliency_map is not None and rounded.saliency_map is not None
        assert np.abs(exact.logits - rounded.logits).max() < 0.01 * np.ptp(exact.logits)
        assert np.corrcoef(exact.saliency_map.ravel(), rounded.saliency_map.ravel())[0, 1] > 0.9999
        assert exact.explained_class.tolist() == rounded.explained_class.tolist() == [1] * count
    again = tmp_path / "again.onnx"
    done = command("export", theirs, "-o", again, *front, "--precision", "fp16", "--data", scenes)
    assert done.code == 0, done.err
    notes = [Model.load(path).metadata.quantization for path in (fp16.path, tmp_path / "again.fp16.onnx")]
    assert [note and note["calibration_samples"] > 0 for note in notes] == [False, True]
    done = command("validate", ours, "--data", scenes, "--quick", "--out", tmp_path / "report")
    assert done.code in (0, 4), done.err
    document = json.loads((tmp_path / "report/report.json").read_text("utf-8"))
    assert document["comparisons"]["fp16"]["reference"] == "fp32"
    assert document["comparisons"]["fp16"]["maps"]["pearson_mean"] > 0.9999
    done = command("export", theirs, "-o", tmp_path / "map.onnx", "--precision", "fp16")
    assert done.code == 2 and "Add --mean MEAN --std STD" in done.err


def test_foreign_file_with_a_fixed_batch_is_converted(command: Command, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs, ours = tmp_path / "theirs.onnx", tmp_path / "ours.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Small().eval(), (torch.randn(1, 3, 32, 32),), theirs, dynamo=False)
    front = ("--mean", "0.5", "--std", "0.5")
    done = command("export", theirs, "-o", ours, *front, "--precision", "fp16")
    assert done.code == 0, done.err
    fp32, fp16 = Model.load(ours), Model.load(tmp_path / "ours.fp16.onnx")
    for seed in (1, 2):
        exact, rounded = (model.predict(images(1, seed, model)).logits for model in (fp32, fp16))
        assert 0 < np.abs(exact - rounded).max() < 0.01 * np.ptp(exact)


def round_to_bfloat16(inputs: ConversionInputs) -> ConvertedGraph:
    """Round the weights to eight bits of significand, but keep them in float32."""
    model = onnx.ModelProto()
    model.CopyFrom(inputs.graph.model)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            bits = numpy_helper.to_array(tensor).view(np.uint32) & np.uint32(0xFFFF0000)
            tensor.CopyFrom(numpy_helper.from_array(bits.view(np.float32), tensor.name))
    return ConvertedGraph(model, {"weights": "bf16"})


def test_precision_defined_by_a_test_is_exported_and_validated(
    exported_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRECISIONS, "bf16", Precision("bf16", ".bf16.onnx", "ONNX, bf16"))
    bounds = replace(RECIPES["fp16"].bounds, map_pearson_p5=0.975)
    monkeypatch.setitem(RECIPES, "bf16", PrecisionRecipe("bf16", round_to_bfloat16, bounds))
    run = Path(shutil.copytree(exported_run, tmp_path / "student"))
    result = export_model(str(run), precisions=["bf16"], profile=GENERIC)
    assert result.quantized["bf16"].path == run / "model.bf16.onnx"
    fp32, bf16 = (Model.load(run / name).predict for name in ("model.onnx", "model.bf16.onnx"))
    picture = images(1, 1, Model.load(run / "model.onnx"))
    assert 0 < np.abs(fp32(picture).logits - bf16(picture).logits).max() < 0.1 * np.ptp(fp32(picture).logits)
    validation = validate_model(str(run), quick=True)
    document = json.loads(validation.document.read_text("utf-8"))
    Draft202012Validator(json_schema()).validate(document)
    assert list(document["models"])[2:] == ["fp32", "int8", "bf16"]
    checks = {check["key"]: check for check in document["checks"]}
    assert checks["bf16_map_pearson_p5"]["bound"] == 0.975 and checks["bf16_divergence"]["measured"] > 0
    assert validation.report.shipped.title == "ONNX, bf16"
    assert validation.model == run / "model.bf16.onnx"
    assert "model.bf16.onnx" in write_bundle(run).models
