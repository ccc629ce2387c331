"""`kdedge compare` on real models: its figures equal the models' predictions."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from compare_toys import MEAN, SIDE, STD, epoch_line, make_run, taught_line
from onnx import numpy_helper
from PIL import Image
from training_toys import CLASSES, VAL, Outcome, write_foreign_file, write_scenes

from kdedge.models.run_folder import BEST, TEACHER_CACHE
from kdedge.models.trained_model import load_trained
from kdedge.pipelines.run_comparison import compare_runs
from kdedge.training.compute_device import ComputeDevice
from kdedge.training.teachers.teacher_cache import TeacherCache


@pytest.fixture
def runs(scenes: Path, tmp_path: Path) -> list[Path]:
    """Two seeds of one student, and their teacher."""
    teacher = make_run(tmp_path / "teacher", data=scenes, seed=7)
    origin = {
        "source": str(teacher),
        "weights": None,
        "weights_sha256": load_trained(str(teacher)).origin["weights_sha256"],
    }
    lines = [taught_line(1, 0.4, 0.5, 0.6), taught_line(2, 0.7, 0.8, 0.9)]
    students = [
        make_run(tmp_path / f"student-{seed}", data=scenes, seed=seed, teacher=origin, epochs=lines) for seed in (0, 1)
    ]
    return [*students, teacher]


def right_by_class(run: Path, val: Path) -> dict[str, float]:
    """Compute the accuracy of each class in a plain loop over the files."""
    model = load_trained(str(run)).model.eval()
    shares = {}
    for index, label in enumerate(sorted(CLASSES)):
        hits = []
        for path in sorted((val / label).iterdir()):
            pixels = (np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255 - MEAN) / STD
            with torch.no_grad():
                logits = model(torch.from_numpy(pixels).permute(2, 0, 1)[None])
            hits.append(int(logits.argmax()) == index)
        shares[label] = float(np.mean(hits))
    return shares


class TestMeasuring:
    def test_predictions_are_of_the_best_epoch(self, runs: list[Path], scenes: Path) -> None:
        comparison = compare_runs(runs)
        assert [one.title for one in comparison.predictions] == ["student-0", "student-1", "teacher"]
        assert comparison.teachers == (), "the teacher is one of the runs"
        assert comparison.notes == () and comparison.warnings == ()
        for run, one in zip(runs, comparison.predictions, strict=True):
            hits = one.predictions.logits.argmax(axis=1) == one.samples.targets
            shares = {label: hits[one.samples.targets == i].mean() for i, label in enumerate(one.samples.labels)}
            assert shares == pytest.approx(right_by_class(run, scenes / "val"))
            assert one.predictions.maps is not None and len(one.predictions.maps) == 3 * VAL
            np.testing.assert_array_equal(one.predictions.explained_class, one.right)
        assert set(comparison.parameters.values()) == {load_trained(str(runs[0])).parameters}

    def test_teacher_outside_the_runs_is_evaluated_once(self, runs: list[Path]) -> None:
        steps: list[tuple[str, int, int]] = []
        comparison = compare_runs(runs[:2], progress=lambda *step: steps.append(step))
        assert [one.title for one in comparison.teachers] == ["teacher"]
        expected = compare_runs(runs[2:]).predictions[0].predictions.logits
        np.testing.assert_allclose(comparison.teachers[0].predictions.logits, expected, atol=1e-5)
        assert steps[0] == ("reading samples", 1, 3 * VAL)
        assert steps[-1] == ("evaluating models", 9 * VAL, 9 * VAL)
        assert sum(what == "reading samples" for what, _, _ in steps) == 3 * VAL, "read once for all"

    def test_missing_or_changed_teacher_is_excluded_with_a_note(self, runs: list[Path]) -> None:
        shutil.copy(runs[0] / BEST, runs[2] / BEST)
        (note,) = compare_runs(runs[:1]).notes
        assert note.startswith("teacher teacher: excluded") and "have changed" in note
        shutil.rmtree(runs[2])
        (note,) = compare_runs(runs[:1]).notes
        assert "does not exist" in note

    def test_onnx_teacher_of_another_framework_is_evaluated(self, scenes: Path, tmp_path: Path) -> None:
        origin = {"source": str(write_foreign_file(tmp_path / "foreign.onnx", 48)), "weights": None}
        comparison = compare_runs([make_run(tmp_path / "student", data=scenes, teacher=origin)])
        assert comparison.notes == ()
        (teacher,) = comparison.teachers
        assert teacher.samples.samples.shape == (3 * VAL, 48, 48, 3), "decoded at its own size"
        colors = teacher.samples.samples.mean((1, 2)) / 255
        weight, bias = (numpy_helper.to_array(part) for part in onnx.load(origin["source"]).graph.initializer)
        expected = (colors - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225) @ weight + bias
        np.testing.assert_allclose(teacher.predictions.logits, expected, atol=1e-4)

    def test_missing_images_keep_recorded_metrics(self, tmp_path: Path) -> None:
        gone = tmp_path / "nowhere"
        comparison = compare_runs([make_run(tmp_path / name, data=gone, seed=seed) for seed, name in enumerate("ab")])
        assert comparison.predictions == () and len(comparison.parameters) == 2
        (note,) = comparison.notes
        assert note.startswith("a, b: only recorded metrics are shown") and str(gone) in note

    def test_images_beyond_half_of_the_memory_are_subsampled(
        self, runs: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ComputeDevice, "memory_bytes", 2 * 9 * SIDE * SIDE * 3)
        comparison = compare_runs(runs)
        (note,) = comparison.notes
        assert note.startswith("student-0, student-1, teacher: the compared predictions cover 9 of 18")
        assert [len(one.samples.names) for one in comparison.predictions] == [9, 9, 9]
        assert np.bincount(comparison.predictions[0].samples.targets).tolist() == [3, 3, 3]

    def test_data_option_selects_other_images(self, scenes: Path, tmp_path: Path) -> None:
        comparison = compare_runs([make_run(tmp_path / "run", data=tmp_path / "nowhere")], data=str(scenes))
        assert len(comparison.predictions) == 1 and comparison.notes == ()

    def test_changed_images_are_noted(self, runs: list[Path], scenes: Path, tmp_path: Path) -> None:
        moved = tmp_path / "moved"
        shutil.copytree(scenes, moved)
        run = make_run(tmp_path / "run", data=moved)
        (moved / "val" / CLASSES[0] / "05.png").unlink()
        comparison = compare_runs([run, runs[0]])
        assert any(note.startswith("run: the samples in") and "have changed" in note for note in comparison.notes)
        assert any(note.startswith("student-0: excluded from the compared predictions") for note in comparison.notes)

    def test_unknown_classes_are_noted(self, runs: list[Path], tmp_path: Path) -> None:
        strange = write_scenes(tmp_path / "strange", labels=("key", "leaf", "mug"), train=1, val=1)
        comparison = compare_runs(runs[:1], data=str(strange))
        assert any("lacks: leaf, mug" in note for note in comparison.notes)


class TestCommand:
    def test_prints_a_table_and_writes_a_page(
        self, command: Callable[..., Outcome], runs: list[Path], tmp_path: Path
    ) -> None:
        page = tmp_path / "deep" / "page.html"
        outcome = command("compare", *runs, "-o", page)
        assert outcome.code == 0, outcome.err
        lines = [re.split(r"\s{2,}", line.strip()) for line in outcome.out.splitlines()]
        assert ["student-0", "2/2", "70.0", "80.0", "0.900", "70.0", "80.0", "0.900", "3.0 s", "teacher"] in [
            line[:10] for line in lines
        ]
        assert ["student-{0,1}", "2", "70.0 ± 0.0", "80.0 ± 0.0", "0.900 ± 0.000"] in [line[:5] for line in lines]
        assert outcome.out.startswith("all runs: ") and "model small:resnet8" in outcome.out.splitlines()[0]
        assert outcome.err.splitlines()[-1] == f"page: {page}"
        assert "<h2>Samples</h2>" in page.read_text(encoding="utf-8")

    def test_json_has_one_object_per_run(
        self, command: Callable[..., Outcome], runs: list[Path], tmp_path: Path
    ) -> None:
        outcome = command("compare", *runs, "--json", "-o", tmp_path / "page.html")
        values = [json.loads(line) for line in outcome.out.splitlines()]
        assert [value["run"] for value in values] == ["student-0", "student-1", "teacher"]
        assert values[0]["best"]["val_map_pearson"] == 0.9
        assert values[0]["teacher"]["source"] == str(runs[2]) and values[2]["teacher"] is None
        assert values[1]["recipe"]["seed"] == 1 and values[1]["folder"] == str(runs[1])

    def test_test_metrics_are_shown_if_available(self, command: Callable[..., Outcome], tmp_path: Path) -> None:
        test = {which: {"test_top1": 0.123, "test_agreement": 0.234} for which in ("best", "last")}
        run = make_run(tmp_path / "run", result={"test": test})
        outcome = command("compare", run, make_run(tmp_path / "other"), "-o", tmp_path / "page.html")
        assert "best test" in outcome.out and outcome.out.count("12.3") == 2 and outcome.out.count("23.4") == 2
        assert "best by validation, test" in (tmp_path / "page.html").read_text(encoding="utf-8")

    def test_incomplete_runs_are_in_the_table(self, command: Callable[..., Outcome], tmp_path: Path) -> None:
        begun = make_run(tmp_path / "begun", epochs=[], finished=False)
        half = make_run(tmp_path / "half", epochs=[epoch_line(1, 0.5, val_loss=1.0)], finished=False)
        outcome = command("compare", begun, half, "-o", tmp_path / "page.html")
        assert outcome.code == 0, outcome.err
        assert re.search(r"begun +0/2 +0\.0 s", outcome.out) and re.search(r"half +1/2 +50\.0 +50\.0", outcome.out)
        assert "note: begun: no epoch is complete" in outcome.err

    def test_teacher_cache_among_the_arguments_is_ignored(
        self, command: Callable[..., Outcome], tmp_path: Path
    ) -> None:
        """`kdedge compare runs/*/` after `kdedge distill … --cache-teacher 4`."""
        make_run(tmp_path / "run")
        TeacherCache(tmp_path / TEACHER_CACHE, {"teacher": "t"})
        outcome = command("compare", *sorted(tmp_path.iterdir()), "--json", "-o", tmp_path / "page.html")
        assert outcome.code == 0, outcome.err
        assert [json.loads(line)["run"] for line in outcome.out.splitlines()] == ["run"]
        outcome = command("compare", tmp_path / TEACHER_CACHE)
        assert outcome.code == 2 and "is not a run folder" in outcome.err

    def test_an_error_keeps_the_existing_page(self, command: Callable[..., Outcome], tmp_path: Path) -> None:
        page = tmp_path / "page.html"
        page.write_text("earlier")
        outcome = command("compare", make_run(tmp_path / "run"), tmp_path, "-o", page)
        assert (outcome.code, page.read_text()) == (2, "earlier")
        assert outcome.err.startswith("error: ") and "is not a run folder" in outcome.err
        assert command("compare", make_run(tmp_path / "b", epochs=[], finished=False), "-o", page).code == 2
