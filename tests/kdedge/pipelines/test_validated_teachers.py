"""Teachers in validation: evaluated as in training, or excluded with a note."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_runs import saved_weights
from safetensors.torch import save_file
from torch.nn import functional as F
from training_toys import write_foreign_file, write_unexplainable

from kdedge.models.code_trust import allow_typed
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import read_run, write_run
from kdedge.models.trained_model import load_trained
from kdedge.pipelines.model_validation import Validation, validate_model
from kdedge_export.metrics.torch_predictions import predict
from kdedge_export.torch_export import export_graph, save_model, wrap_for_export
from kdedge_runtime.metadata import Metadata
from kdedge_runtime.modalities.image import ImageInput


def teacher_notes(validation: Validation) -> list[str]:
    """Return the notes of the report on its teacher."""
    return [note for note in validation.report.notes if "teacher" in note]


def test_unloadable_teacher_is_excluded_with_a_note(run: Path, tmp_path: Path) -> None:
    gone = {"source": "small:resnet20", "weights": str(tmp_path / "gone.safetensors")}
    write_run(run, replace(read_run(run), teacher=gone))
    validation = validate_model(str(run))
    assert "teacher" not in validation.report.models
    assert validation.report.passed
    (note,) = teacher_notes(validation)
    assert re.search(r"the teacher is excluded, it cannot be loaded: .*gone\.safetensors", note)


def test_teacher_without_map_is_evaluated_by_predictions(run: Path, tmp_path: Path) -> None:
    name = write_unexplainable(tmp_path / "flat.py", 224)
    allow_typed(name)
    weights = saved_weights(name, 3, tmp_path / "flat.safetensors")
    write_run(run, replace(read_run(run), teacher={"source": name, "weights": str(weights)}))
    validation = validate_model(str(run))
    report, predictions = validation.report, validation.evidence.predictions["teacher"]
    assert report.passed
    (note,) = teacher_notes(validation)
    assert re.search("only the teacher's predictions are evaluated, not its maps: Sequential cannot be explained", note)
    assert predictions.maps is None and report.models["teacher"].accuracy is not None
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
    assert trained.input.height > evidence.samples.shape[1]
    x = torch.from_numpy((evidence.samples / 255.0 - trained.input.mean) / trained.input.std).permute(0, 3, 1, 2)
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
        assert validation.report.passed and teacher_notes(validation) == []
        assert validation.report.models["teacher"].bytes == (tmp_path / "t.onnx").stat().st_size
        predictions, evidence = validation.evidence.predictions["teacher"], validation.evidence
        classes = evidence.predictions["student"].explained_class
        expected = predict(module, evidence.samples, classes)  # resamples without rounding to whole pixel values
        np.testing.assert_allclose(predictions.logits, expected.logits, atol=0.02 * np.abs(expected.logits).max())
        assert predictions.maps is not None and expected.maps is not None
        np.testing.assert_allclose(predictions.maps, expected.maps, atol=0.05 * np.abs(expected.maps).max())
        np.testing.assert_array_equal(predictions.explained_class, classes)
        assert validation.report.comparisons["student"].maps is not None

    def test_foreign_teacher_file_is_evaluated_by_predictions(self, run: Path, tmp_path: Path) -> None:
        self.taught_by(run, write_foreign_file(tmp_path / "foreign.onnx", 48))
        validation = validate_model(str(run), quick=True)
        (note,) = teacher_notes(validation)
        assert note == (
            "only the teacher's predictions are evaluated, not its maps: foreign.onnx has no map of a selectable class"
        )
        assert validation.report.passed and validation.report.models["teacher"].accuracy is not None
        assert validation.report.comparisons["student"].maps is None
        assert validation.evidence.predictions["teacher"].maps is None

    def test_teacher_file_of_other_classes_is_a_note(self, run: Path, tmp_path: Path) -> None:
        self.taught_by(run, write_foreign_file(tmp_path / "foreign.onnx", 48, classes=7))
        validation = validate_model(str(run), quick=True)
        report = validation.report
        assert teacher_notes(validation) == [
            "the teacher is excluded, it fails on the samples: it has 7 classes, and the student 3."
        ]
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
    validation = validate_model(str(run), quick=True)
    report = validation.report
    assert teacher_notes(validation) == ["the teacher is excluded, it fails on the samples: no pictures, please"]
    assert report.passed and "teacher" not in report.models
