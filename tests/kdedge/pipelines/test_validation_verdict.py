"""Object annotations and budgets in validation, its verdict and its command."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exported_runs import graph_of
from PIL import Image
from training_toys import VAL, Outcome

from kdedge.models.run_folder import BEST, read_run, write_run
from kdedge.models.trained_model import load_trained
from kdedge.pipelines.footprints import measure_footprints
from kdedge.pipelines.model_validation import Validation, validate_model
from kdedge_export.torch_export import save_model
from kdedge_export.validation import Check
from kdedge_runtime import Model
from kdedge_runtime.devices import Budgets, load_profile
from kdedge_runtime.errors import DataError, UsageError, ValidationFailed


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
        assert places is not None and places.samples == VAL
        assert list(places.rows) == ["teacher", "student", "fp32", "center", "random", "edges"]
        assert places.rows["center"].pointing == 1.0
        assert places.rows["fp32"].energy_inside == pytest.approx(places.rows["student"].energy_inside, abs=1e-4)

    def test_boxes_option(self, run: Path, tmp_path: Path) -> None:
        boxes = self.boxes(tmp_path / "other.csv")
        places = validate_model(str(run), boxes=boxes, quick=True).report.localization
        assert places is not None and places.samples == VAL

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
        assert (report["quick"], report["device"], report["localization"]["samples"]) == (True, "raspberry-pi-5", VAL)
        assert outcome.code == (0 if report["passed"] else 4)
        assert len(outcome.out.splitlines()) == len(report["checks"])
        assert "--quick: faithfulness and robustness were skipped" in outcome.err
        assert "note: latency and memory were measured on this machine" in outcome.err
        assert "center prior" in outcome.err

    def test_unknown_device_is_rejected_before_measuring(self, run: Path, command: Callable[..., Outcome]) -> None:
        outcome = command("validate", run, "--device", "raspberry-pi-6")
        assert outcome.code == 2
        assert "device profile 'raspberry-pi-6' does not exist. Did you mean raspberry-pi-5?" in outcome.err
        assert not (run / "report").exists()


class TestVerdict:
    def validation(self, run: Path, *checks: Check) -> Validation:
        made = validate_model(str(run), quick=True)
        return replace(made, report=replace(made.report, checks=checks))

    def test_inconclusive_check_fails_with_the_samples_needed(self, run: Path) -> None:
        shown = Check("a", "a", 1.0, ">=", 0.9, "share", "passed")
        unshown = replace(shown, outcome="inconclusive", samples_needed=70, reason="with 18 samples")
        with pytest.raises(
            ValidationFailed, match=r"^1 of 2 checks is inconclusive with 18 samples \(about 70 needed to confirm\)"
        ):
            self.validation(run, shown, unshown).require_passed()
        both = r"^1 of 3 checks failed and 1 of 3 checks is inconclusive with 18 samples"
        with pytest.raises(ValidationFailed, match=both):
            self.validation(run, shown, unshown, replace(shown, outcome="failed")).require_passed()
        self.validation(run, shown).require_passed()

    def test_undecidable_check_reports_no_number_of_images(self, run: Path) -> None:
        shown = Check("a", "a", 1.0, ">=", 0.9, "share", "passed")
        ill = replace(shown, outcome="inconclusive", reason="since float32 alone explains up to 4e-02 of the range")
        with pytest.raises(
            ValidationFailed, match=r"^1 of 2 checks is inconclusive regardless of the number of samples; see "
        ):
            self.validation(run, shown, ill).require_passed()
        few = replace(ill, samples_needed=370)
        both = r"^2 of 4 checks are inconclusive with 18 samples \(about 370 needed to confirm\) "
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
