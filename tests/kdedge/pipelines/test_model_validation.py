"""Validation compares files with the exact weights they were exported from, or reports why it cannot."""

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from training_toys import SIDE, VAL, Outcome, rewrite, write_foreign_file, write_scenes, write_unexplainable

from kdedge.models.code_trust import allow_typed
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import BEST, read_run, write_run
from kdedge.models.trained_model import load_trained
from kdedge.pipelines.footprints import measure_footprints
from kdedge.pipelines.model_export import export_model
from kdedge.pipelines.model_validation import Validation, validate_model
from kdedge.training.compute_device import ComputeDevice
from kdedge_export.metrics.torch_predictions import predict
from kdedge_export.torch_export import export_graph, save_model, wrap_for_export
from kdedge_export.validation import Check
from kdedge_runtime import Model
from kdedge_runtime.devices import Budgets, load_profile
from kdedge_runtime.errors import DataError, UsageError, ValidationFailed
from kdedge_runtime.metadata import Metadata, Outputs
from kdedge_runtime.modalities.image import ImageInput

REFERENCE_DATA = Path(__file__).parents[3].parent / "shared" / "data"
PHOTOS = REFERENCE_DATA / "imagenet-sample-500.zip"
LITE0 = REFERENCE_DATA / "weights" / "tf_efficientnet_lite0.safetensors"


@pytest.fixture
def run(exported_run: Path, tmp_path: Path) -> Path:
    """Copy of the exported run with the fp32 file only, as copied from another machine."""
    moved = tmp_path / "moved"
    shutil.copytree(exported_run, moved, ignore=shutil.ignore_patterns("model.int8.onnx"))
    return moved


def graph_of(path: Path) -> onnx.ModelProto:
    """Return the graph as before saving, without its default class index."""
    model = onnx.load(path)
    (default,) = (tensor for tensor in model.graph.initializer if tensor.name == "class_index")
    model.graph.initializer.remove(default)
    return model


def change_lineage(path: Path, target: Path, **changes: Any) -> None:
    """Rewrite a model file with a changed lineage."""
    metadata = Model.load(path).metadata
    save_model(graph_of(path), replace(metadata, lineage=metadata.lineage | changes), target)


def saved_weights(name: str, classes: int, path: Path) -> Path:
    torch.manual_seed(0)
    save_file(build_model(ModelSpec(name, classes, fresh_stem=False), 224).state_dict(), path)
    return path


@pytest.fixture
def named_file(exported_run: Path, tmp_path: Path) -> Path:
    """The same model exported by name with a weights file, without a run."""
    state = load_file(exported_run / BEST)
    weights = tmp_path / "weights.safetensors"
    save_file({name.removeprefix("model."): value for name, value in state.items()}, weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    origin = {"source": "small:resnet8", "weights": weights.name, "weights_sha256": digest}
    metadata = Model.load(exported_run / "model.onnx").metadata
    path = tmp_path / "named.onnx"
    save_model(graph_of(exported_run / "model.onnx"), replace(metadata, lineage={"student": origin}), path)
    return path


def shift(weights: Path, by: float) -> None:
    state = load_file(weights)
    rewrite(weights, {name: value + by if value.is_floating_point() else value for name, value in state.items()})


def test_unmodified_run_passes_and_writes_both_reports(run: Path, scenes: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    validation = validate_model(str(run), progress=lambda *step: steps.append(step))
    report = validation.report
    assert report.passed
    assert report.images == 3 * VAL and report.labeled
    assert report.data.description == f"{scenes.name}, validation split (split by folder)"
    assert set(report.models) == {"teacher", "student", "fp32"}
    comparison = report.comparisons["fp32"]
    assert comparison.agreement == 1.0
    assert comparison.maps is not None and comparison.maps.error_relative <= 1e-4
    assert validation.report.notes == ()
    assert validation.model == run / "model.onnx"
    assert (validation.page, validation.document) == (run / "report/report.html", run / "report/report.json")
    assert json.loads(validation.document.read_text(encoding="utf-8"))["passed"] is True
    page = validation.page.read_text(encoding="utf-8")
    assert "<html" in page and "small:resnet8" in page
    timing = "measuring latency and memory"
    assert steps[:3] == [(timing, 0, 1), (timing, 1, 1), ("reading images", 1, 3 * VAL)]
    assert all(done <= total for _, done, total in steps)


def test_top1_of_the_report_equals_the_run(run: Path) -> None:
    report = validate_model(str(run)).report
    measured = Model.load(run / "model.onnx").metadata.metrics["val_top1"]
    assert report.models["student"].top1 == pytest.approx(measured)
    assert report.models["fp32"].top1 == pytest.approx(measured)


def test_int8_is_validated_with_fp32(exported_run: Path, tmp_path: Path) -> None:
    validation = validate_model(str(exported_run), output=tmp_path / "elsewhere")
    assert {"fp32", "int8"} <= set(validation.report.models)
    assert any(check.key.startswith("int8_") for check in validation.report.checks)
    assert validation.model == exported_run / "model.int8.onnx"
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["report.html", "report.json"]
    assert not (exported_run / "report").exists()


def test_int8_file_of_another_model_is_rejected(exported_run: Path, run: Path) -> None:
    changes = {"student": {"source": "another", "weights": "another", "weights_sha256": "another"}}
    change_lineage(exported_run / "model.int8.onnx", run / "model.int8.onnx", **changes)
    with pytest.raises(UsageError, match=r"model\.int8\.onnx was exported from another model than .*model\.onnx"):
        validate_model(str(run))


def test_int8_file_with_another_method_is_rejected(exported_run: Path, run: Path) -> None:
    model = Model.load(exported_run / "model.int8.onnx")
    earlier = replace(model.metadata, outputs=replace(model.metadata.outputs, method="layercam"))
    save_model(graph_of(model.path), earlier, run / "model.int8.onnx")
    with pytest.raises(UsageError, match=r"model\.int8\.onnx was exported with another --method"):
        validate_model(str(run))


def test_broken_file_fails(run: Path) -> None:
    path = run / "model.onnx"
    metadata, model = Model.load(path).metadata, graph_of(path)
    kernel = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel)[:, ::-1].copy(), kernel.name))  # BGR
    save_model(model, metadata, path)
    report = validate_model(str(run)).report
    assert not report.passed
    assert "fp32_map_error" in {check.key for check in report.checks if check.passed is False}


def test_changed_weights_are_detected(run: Path) -> None:
    shift(run / BEST, 0.01)
    with pytest.raises(
        UsageError, match=r"model\.onnx was exported from other weights than those in .*best\.safetensors"
    ):
        validate_model(str(run))


def test_unexported_run_suggests_the_command(teacher_run: Path) -> None:
    with pytest.raises(UsageError, match=rf"no model file yet\. .*kdedge export {teacher_run} --quantize"):
        validate_model(str(teacher_run))
    with pytest.raises(UsageError, match=r"kdedge export MODEL -o nowhere.onnx"):
        validate_model("nowhere.onnx")
    with pytest.raises(UsageError, match=r"no run folder runs/student.*kdedge distill .* --out runs/student"):
        validate_model("runs/student")


def test_moved_images_suggest_data_option(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["data"]["source"] = "/elsewhere/scenes"
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"trained with the images in /elsewhere/scenes, .* --data DIR"):
        validate_model(str(run))


def test_file_without_map_is_rejected(run: Path) -> None:
    metadata = replace(Model.load(run / "model.onnx").metadata, outputs=Outputs("none"))
    save_model(graph_of(run / "model.onnx"), metadata, run / "model.onnx")
    with pytest.raises(UsageError, match="--method none and has no map"):
        validate_model(str(run))


def test_file_of_a_run_outside_its_folder_is_rejected(run: Path, tmp_path: Path) -> None:
    inside, alone = run / "other.onnx", tmp_path / "alone.onnx"
    for path in (inside, alone):
        shutil.copy(run / "model.onnx", path)
    assert validate_model(str(inside)).report.passed
    with pytest.raises(UsageError, match=r"alone\.onnx was exported from the run .*, but is not in its folder"):
        validate_model(str(alone))


def test_random_weights_are_rejected(named_file: Path, scenes: Path) -> None:
    origin = {"source": "small:resnet8", "weights": None, "weights_sha256": None}
    change_lineage(named_file, named_file, student=origin)
    with pytest.raises(UsageError, match=r"random weights.*--weights FILE"):
        validate_model(str(named_file), data=str(scenes))


def test_named_model_needs_images(named_file: Path) -> None:
    with pytest.raises(UsageError, match=r"named\.onnx does not belong to a run.*--data DIR"):
        validate_model(str(named_file))


def test_unknown_class_folders_are_rejected(named_file: Path, tmp_path: Path) -> None:
    strange = write_scenes(tmp_path / "strange", labels=("key", "leaf", "mug"), train=1, val=1)
    with pytest.raises(DataError, match=r"class folders that the model lacks: leaf, mug\..*bottle, fish, key"):
        validate_model(str(named_file), data=str(strange))


def test_named_model_passes_with_data_option(named_file: Path, scenes: Path) -> None:
    validation = validate_model(str(named_file), data=str(scenes))
    assert validation.report.passed and validation.report.labeled
    assert "teacher" not in validation.report.models
    assert validation.page == named_file.with_suffix(".report") / "report.html"


def test_weights_option_of_a_named_model(
    command: Callable[..., Outcome], named_file: Path, scenes: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere" / "other name.safetensors"
    elsewhere.parent.mkdir()
    (tmp_path / "weights.safetensors").rename(elsewhere)
    required = ("validate", named_file, "--data", scenes, "--quick")
    lost = command(*required)
    assert lost.code == 2 and "the weights weights.safetensors, which are neither" in lost.err
    assert "--weights FILE" in lost.err
    found = command(*required, "--weights", elsewhere)
    assert found.code == 0, found.err
    shift(elsewhere, 1e-3)
    changed = command(*required, "--weights", elsewhere)
    assert changed.code == 2 and f"other weights than those in {elsewhere}" in changed.err


def test_run_rejects_explicit_weights(run: Path) -> None:
    with pytest.raises(UsageError, match=r"exported from a run, which has its own weights\. Remove --weights w\.pth"):
        validate_model(str(run), weights=Path("w.pth"))


def test_classes_are_matched_by_name(run: Path, tmp_path: Path) -> None:
    """Images of two of the three classes, so that folder indices differ from label indices."""
    subset = write_scenes(tmp_path / "two", labels=("fish", "key"), train=2, val=8)
    report = validate_model(str(run), data=str(subset)).report
    model = Model.load(run / "model.onnx")
    right = 0
    for path in sorted((subset / "val").rglob("*.png")):
        prediction = model.predict(np.asarray(Image.open(path))[None])
        right += model.metadata.labels[int(prediction.logits.argmax())] == path.parent.name
    assert report.models["fp32"].top1 == right / 16


@pytest.mark.parametrize(("method", "target_layer"), [("layercam", None), ("gradcam", "layer2"), ("hirescam", None)])
def test_file_is_compared_with_its_own_method(
    named_file: Path, scenes: Path, tmp_path: Path, method: str, target_layer: str | None
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, picture in enumerate(sorted(scenes.rglob("*.png"))):
        shutil.copy(picture, flat / f"{index}.png")
    origin, file = Model.load(named_file).metadata.lineage["student"], tmp_path / "other.onnx"
    explanation = {"method": method, "target_layer": target_layer}
    profile = load_profile("generic")
    weights = named_file.parent / origin["weights"]
    export_model(origin["source"], weights=weights, output=file, profile=profile, **explanation)
    outputs = Model.load(file).metadata.outputs
    assert outputs.method == method and target_layer in (None, outputs.target_layer)
    assert validate_model(str(file), data=str(flat)).report.passed


def test_unlabeled_images_are_evaluated_by_agreement(named_file: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "flat"
    folder.mkdir()
    for index in range(20):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    report = validate_model(str(named_file), data=str(folder)).report
    assert report.passed and not report.labeled
    assert report.models["fp32"].top1 is None
    assert report.data.description == "flat, validation split (split by file name hash)"


def test_unreadable_images_are_noted(run: Path, scenes: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(scenes, copy)
    next((copy / "val" / "fish").iterdir()).write_bytes(b"")
    validation = validate_model(str(run), data=str(copy))
    assert validation.report.images == 3 * VAL - 1
    assert len(validation.report.notes) == 1 and "1 of 18" in validation.report.notes[0]


def test_validation_images_beyond_half_of_the_memory_are_subsampled(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ComputeDevice, "memory_bytes", 2 * 9 * SIDE * SIDE * 3)
    report = validate_model(str(run), quick=True).report
    assert report.images == 9
    assert report.notes == ("9 of 18 validation images, evenly spaced: more do not fit in half of the memory",)
    assert [row.n for row in report.classes] == [3, 3, 3]


def test_unloadable_teacher_is_excluded_with_a_note(run: Path, tmp_path: Path) -> None:
    gone = {"source": "small:resnet20", "weights": str(tmp_path / "gone.safetensors")}
    write_run(run, replace(read_run(run), teacher=gone))
    validation = validate_model(str(run))
    assert "teacher" not in validation.report.models
    assert validation.report.passed
    (note,) = validation.report.notes
    assert re.search(r"the teacher is excluded, it cannot be loaded: .*gone\.safetensors", note)


def test_teacher_without_map_is_evaluated_by_predictions(run: Path, tmp_path: Path) -> None:
    name = write_unexplainable(tmp_path / "flat.py", 224)
    allow_typed(name)
    weights = saved_weights(name, 3, tmp_path / "flat.safetensors")
    write_run(run, replace(read_run(run), teacher={"source": name, "weights": str(weights)}))
    validation = validate_model(str(run))
    report, predictions = validation.report, validation.evidence.predictions["teacher"]
    assert report.passed
    (note,) = report.notes
    assert re.search("only the teacher's predictions are evaluated, not its maps: Sequential cannot be explained", note)
    assert predictions.maps is None and report.models["teacher"].top1 is not None
    same = predictions.logits.argmax(axis=1) == validation.evidence.predictions["student"].logits.argmax(axis=1)
    assert report.comparisons["student"].agreement == pytest.approx(same.mean())
    assert report.comparisons["student"].maps is None
    assert "predictions are evaluated, not its maps" in validation.page.read_text(encoding="utf-8")


def test_teacher_uses_its_own_input_size(run: Path, scenes: Path, tmp_path: Path) -> None:
    weights = saved_weights("timm:test_efficientnet", 3, tmp_path / "teacher.safetensors")
    teacher = {"source": "timm:test_efficientnet", "weights": str(weights)}
    write_run(run, replace(read_run(run), teacher=teacher))
    evidence = validate_model(str(run)).evidence
    trained = load_trained("timm:test_efficientnet", weights=weights)
    assert trained.input.height > evidence.images.shape[1]
    x = torch.from_numpy((evidence.images / 255.0 - trained.input.mean) / trained.input.std).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = trained.model.eval()(F.interpolate(x.float(), trained.input.height, mode="bilinear", antialias=True))
    np.testing.assert_allclose(evidence.predictions["teacher"].logits, logits, atol=1e-4 * float(logits.abs().max()))


class TestTeachersFile:
    """An ONNX teacher is evaluated as in training: its images are resampled."""

    def taught_by(self, run: Path, file: Path) -> None:
        write_run(run, replace(read_run(run), teacher={"source": str(file), "weights": None}))

    def test_kdedge_teacher_file_of_another_size_explains_the_students_class(self, run: Path, tmp_path: Path) -> None:
        torch.manual_seed(0)
        module = wrap_for_export(
            build_model(ModelSpec("small:resnet8", 3), 64), ImageInput(64, 64, (0.5,) * 3, (0.25,) * 3)
        )
        metadata = Metadata(("bottle", "fish", "key"), module.spec, module.outputs, temperature=2.0)
        save_model(export_graph(module).model, metadata, tmp_path / "t.onnx")
        self.taught_by(run, tmp_path / "t.onnx")
        validation = validate_model(str(run), quick=True)
        assert validation.report.passed and validation.report.notes == ()
        assert validation.report.models["teacher"].bytes == (tmp_path / "t.onnx").stat().st_size
        predictions, evidence = validation.evidence.predictions["teacher"], validation.evidence
        classes = evidence.predictions["student"].explained_class
        expected = predict(module, evidence.images, classes)  # resamples without rounding to whole pixel values
        np.testing.assert_allclose(predictions.logits, expected.logits, atol=0.02 * np.abs(expected.logits).max())
        assert predictions.maps is not None and expected.maps is not None
        np.testing.assert_allclose(predictions.maps, expected.maps, atol=0.05 * np.abs(expected.maps).max())
        np.testing.assert_array_equal(predictions.explained_class, classes)
        assert validation.report.comparisons["student"].maps is not None

    def test_foreign_teacher_file_is_evaluated_by_predictions(self, run: Path, tmp_path: Path) -> None:
        self.taught_by(run, write_foreign_file(tmp_path / "foreign.onnx", 48))
        validation = validate_model(str(run), quick=True)
        (note,) = validation.report.notes
        assert note == (
            "only the teacher's predictions are evaluated, not its maps: foreign.onnx has no map of a selectable class"
        )
        assert validation.report.passed and validation.report.models["teacher"].top1 is not None
        assert validation.report.comparisons["student"].maps is None
        assert validation.evidence.predictions["teacher"].maps is None

    def test_teacher_file_of_other_classes_is_a_note(self, run: Path, tmp_path: Path) -> None:
        self.taught_by(run, write_foreign_file(tmp_path / "foreign.onnx", 48, classes=7))
        report = validate_model(str(run), quick=True).report
        assert report.notes == (
            "the teacher is excluded, it fails on the images: it has 7 classes, and the student 3.",
        )
        assert report.passed and "teacher" not in report.models


def test_teacher_with_failing_code_is_excluded_with_a_note(run: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from torch import nn\n"
        "class Broken(nn.Module):\n"
        "    pretrained_cfg = {'input_size': (3, 32, 32)}\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.last = nn.Linear(3, 3)\n"
        "    def forward(self, x):\n"
        "        if len(x.unique()) < x.numel() // 2:\n"  # of noise all are distinct
        "            raise ValueError('no pictures, please')\n"
        "        return self.last(x.mean((2, 3)))\n"
        "def make_model():\n"
        "    return Broken()\n"
    )
    save_file({"last.weight": torch.eye(3), "last.bias": torch.zeros(3)}, tmp_path / "w.safetensors")
    allow_typed(f"{tmp_path / 'broken.py'}:make_model")
    teacher = {"source": f"{tmp_path / 'broken.py'}:make_model", "weights": str(tmp_path / "w.safetensors")}
    write_run(run, replace(read_run(run), teacher=teacher))
    report = validate_model(str(run), quick=True).report
    assert report.notes == ("the teacher is excluded, it fails on the images: no pictures, please",)
    assert report.passed and "teacher" not in report.models


class TestObjects:
    """Object annotations from the dataset or the user."""

    @pytest.fixture
    def copy(self, scenes: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(scenes, tmp_path / "copy"))

    def boxes(self, path: Path, prefix: str = "") -> Path:
        names = (f"val/fish/{number:02}.png" for number in range(VAL))
        lines = [f"{prefix}{name},4,4,28,28" for name in names]
        path.write_text("\n".join(["file,x1,y1,x2,y2", *lines]) + "\n")
        return path

    def test_boxes_next_to_the_images_are_used(self, run: Path, copy: Path) -> None:
        self.boxes(copy / "boxes.csv")
        places = validate_model(str(run), data=str(copy), quick=True).report.localization
        assert places is not None and places.images == VAL
        assert list(places.rows) == ["teacher", "student", "fp32", "centre", "random", "edges"]
        assert places.rows["centre"].pointing == 1.0
        assert places.rows["fp32"].energy_inside == pytest.approx(places.rows["student"].energy_inside, abs=1e-4)

    def test_boxes_option(self, run: Path, tmp_path: Path) -> None:
        boxes = self.boxes(tmp_path / "other.csv")
        places = validate_model(str(run), boxes=boxes, quick=True).report.localization
        assert places is not None and places.images == VAL

    def test_maps_are_for_the_ground_truth_class(self, run: Path, tmp_path: Path) -> None:
        """The maps are for the ground-truth class even if the prediction differs."""
        boxes = self.boxes(tmp_path / "other.csv")
        report = validate_model(str(run), boxes=boxes, quick=True).report
        model = Model.load(run / "model.onnx")
        fish = model.metadata.labels.index("fish")
        hits = []
        for number in range(VAL):
            with Image.open(Path(read_run(run).data["source"]) / f"val/fish/{number:02}.png") as picture:
                saliency_map = model.predict(np.asarray(picture)[None], class_index=fish).saliency_map
            assert saliency_map is not None
            large = np.asarray(Image.fromarray(saliency_map[0]).resize((32, 32), Image.Resampling.BICUBIC))
            row, column = divmod(int(large.argmax()), 32)
            hits.append(4 <= row < 28 and 4 <= column < 28)
        assert report.localization is not None
        assert report.localization.rows["fp32"].pointing == pytest.approx(np.mean(hits))

    def test_boxes_of_other_images_are_an_error_only_if_explicit(self, run: Path, copy: Path) -> None:
        boxes = self.boxes(copy / "boxes.csv", prefix="elsewhere/")
        with pytest.raises(DataError, match="none of the 18 images"):
            validate_model(str(run), data=str(copy), boxes=boxes, quick=True)
        report = validate_model(str(run), data=str(copy), quick=True).report
        assert report.localization is None
        assert "localization is not evaluated: " in report.notes[0]


class TestBudgets:
    def test_file_within_budget_passes_with_a_note(self, run: Path) -> None:
        profile = load_profile("raspberry-pi-5")
        report = validate_model(str(run), profile=profile, quick=True).report
        required = {check.key: check for check in report.checks if check.key.startswith("fp32_")}
        assert {"fp32_file_mb", "fp32_parameters", "fp32_latency_ms", "fp32_peak_memory_mb"} <= required.keys()
        assert required["fp32_parameters"].measured == load_trained(str(run)).parameters
        assert required["fp32_file_mb"].measured == (run / "model.onnx").stat().st_size / 1e6
        assert report.device == "raspberry-pi-5"
        assert report.footprints["fp32"].threads == profile.threads
        assert "were measured on this machine" in report.notes[0]

    def test_default_device_is_the_one_of_the_int8_file(self, exported_run: Path, tmp_path: Path) -> None:
        both = shutil.copytree(exported_run, tmp_path / "both")
        file = both / "model.int8.onnx"
        metadata = Model.load(file).metadata
        assert metadata.quantization is not None
        made_for = metadata.quantization | {"device": "raspberry-pi-5"}
        save_model(graph_of(file), replace(metadata, quantization=made_for), file)
        report = validate_model(str(both), quick=True).report
        assert report.device == "raspberry-pi-5"
        assert {"fp32_file_mb", "int8_file_mb"} <= {check.key for check in report.checks}
        assert report.notes[0].startswith("the budgets are those of raspberry-pi-5, which the int8 file was made for")

    def test_file_over_budget_fails(self, run: Path) -> None:
        profile = replace(load_profile("generic"), budgets=Budgets(file_mb=0.001, peak_memory_mb=1.0))
        report = validate_model(str(run), profile=profile, quick=True).report
        failed = {check.key for check in report.checks if check.outcome == "failed"}
        assert failed == {"fp32_file_mb", "fp32_peak_memory_mb"}

    def test_memory_excludes_torch(self, run: Path) -> None:
        """This process has imported torch; the measured one has not."""
        footprint = measure_footprints({"fp32": Model.load(run / "model.onnx")}, 1)["fp32"]
        assert footprint.peak_memory_mb is not None and 20 < footprint.peak_memory_mb < 200


class TestCommand:
    def test_options_reach_the_report(
        self, run: Path, tmp_path: Path, command: Callable[..., Outcome], scenes: Path
    ) -> None:
        boxes = TestObjects().boxes(tmp_path / "boxes.csv")
        where = ("--data", scenes, "--boxes", boxes, "--out", tmp_path / "out")
        outcome = command("validate", run, "--quick", "--device", "raspberry-pi-5", *where)
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert (report["quick"], report["device"], report["localization"]["images"]) == (True, "raspberry-pi-5", VAL)
        assert outcome.code == (0 if report["passed"] else 4)
        assert len(outcome.out.splitlines()) == len(report["checks"])
        assert "--quick: faithfulness and robustness were skipped" in outcome.err
        assert "note: latency and memory were measured on this machine" in outcome.err
        assert "guess at the center" in outcome.err

    def test_unknown_device_is_rejected_before_measuring(self, run: Path, command: Callable[..., Outcome]) -> None:
        outcome = command("validate", run, "--device", "raspberry-pi-6")
        assert outcome.code == 2
        assert "device profile 'raspberry-pi-6' does not exist. Did you mean raspberry-pi-5?" in outcome.err
        assert not (run / "report").exists()


class TestVerdict:
    def validation(self, run: Path, *checks: Check) -> Validation:
        made = validate_model(str(run), quick=True)
        return replace(made, report=replace(made.report, checks=checks))

    def test_inconclusive_check_fails_with_the_images_needed(self, run: Path) -> None:
        shown = Check("a", "a", 1.0, ">=", 0.9, "share", "passed")
        unshown = replace(shown, outcome="inconclusive", images_needed=70, reason="with 18 images")
        with pytest.raises(
            ValidationFailed, match=r"^1 of 2 checks is inconclusive with 18 images \(about 70 would show it\)"
        ):
            self.validation(run, shown, unshown).require_passed()
        both = r"^1 of 3 checks failed and 1 of 3 checks is inconclusive with 18 images"
        with pytest.raises(ValidationFailed, match=both):
            self.validation(run, shown, unshown, replace(shown, outcome="failed")).require_passed()
        self.validation(run, shown).require_passed()

    def test_undecidable_check_reports_no_number_of_images(self, run: Path) -> None:
        shown = Check("a", "a", 1.0, ">=", 0.9, "share", "passed")
        ill = replace(shown, outcome="inconclusive", reason="since float32 alone explains up to 4e-02 of the range")
        with pytest.raises(
            ValidationFailed, match=r"^1 of 2 checks is inconclusive regardless of the number of images; see "
        ):
            self.validation(run, shown, ill).require_passed()
        few = replace(ill, images_needed=370)
        both = r"^2 of 4 checks are inconclusive with 18 images \(about 370 would show them\) "
        with pytest.raises(ValidationFailed, match=both):
            self.validation(run, shown, ill, few, few).require_passed()

    def test_labels_are_compared_with_training(self, run: Path) -> None:
        metadata = Model.load(run / "model.onnx").metadata
        save_model(graph_of(run / "model.onnx"), replace(metadata, labels=metadata.labels[::-1]), run / "model.onnx")
        report = validate_model(str(run), quick=True).report
        assert {check.key for check in report.checks if check.passed is False} == {"fp32_labels"}

    def test_file_of_another_size_is_rejected(self, run: Path, named_file: Path, scenes: Path, tmp_path: Path) -> None:
        spec = replace(read_run(run).input, height=40, width=40)
        write_run(run, replace(read_run(run), input=spec))
        with pytest.raises(UsageError, match=r"takes 32 × 32 px, but its model takes 40 × 40"):
            validate_model(str(run))

    def test_report_has_hashes_of_checkpoints_and_data(self, run: Path) -> None:
        report = validate_model(str(run), quick=True).report
        assert report.models["student"].sha256 == hashlib.sha256((run / BEST).read_bytes()).hexdigest()
        teacher = read_run(run).teacher
        assert teacher is not None and report.models["teacher"].sha256 == teacher["weights_sha256"]
        assert report.data.fingerprint == read_run(run).data["fingerprint"]
        page = (run / "report" / "report.html").read_text(encoding="utf-8")
        assert all(facts.sha256 is not None and facts.sha256 in page for facts in report.models.values())
        assert report.data.fingerprint in page


@pytest.mark.models
@pytest.mark.data
@pytest.mark.skipif(not PHOTOS.is_file() or not LITE0.is_file(), reason=f"no reference data in {REFERENCE_DATA}")
def test_pretrained_model_keeps_predictions_and_maps_in_int8(tmp_path: Path) -> None:
    """EfficientNet-Lite0 on photos outside the calibration set, from its name to the verdict."""
    with zipfile.ZipFile(PHOTOS) as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::8]:
            (tmp_path / "photos").mkdir(exist_ok=True)
            (tmp_path / "photos" / Path(name).name).write_bytes(archive.read(name))
    data, output = str(tmp_path / "photos"), tmp_path / "lite0.onnx"
    profile = load_profile("generic")
    result = export_model(
        "timm:tf_efficientnet_lite0", weights=LITE0, output=output, precisions=["int8"], data=data, profile=profile
    )
    display = result.metadata.outputs.display
    assert result.metadata.outputs == Outputs("hirescam", "bn2", "GAP+Linear", 7, 7, display)
    assert max(map(abs, display.shift)) < 0.3, "as mirrored photos show"
    assert len(result.metadata.labels) == 1000
    report = validate_model(str(output), data=data, weights=LITE0).report
    # A dozen photos are too few to show every bound, but none may be violated.
    assert all(check.outcome != "failed" for check in report.checks)
    fp32, int8 = report.comparisons["fp32"], report.comparisons["int8"]
    assert fp32.agreement == 1.0
    assert fp32.maps is not None and fp32.maps.error_relative <= 1e-4
    assert int8.maps is not None and int8.maps.pearson_mean >= 0.98
    assert int8.maps.floor_pearson < 0.9, "maps of different photos agree as much as those of one"
    assert report.models["int8"].bytes < 0.5 * report.models["fp32"].bytes
