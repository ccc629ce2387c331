"""Training runs: plans, records and rejected requests."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from training_toys import CLASSES, Listener, write_scenes, write_unexplainable

from kdedge.config.train_config import TrainConfig
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import BEST, LAST, METRICS, read_run
from kdedge.training.training_run import start_run
from kdedge_runtime.errors import DataError, UsageError

SMALL = "small:resnet8"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Dataset of three classes with four training and two validation images each."""
    return write_scenes(tmp_path / "data", train=4, val=2)


class TestFolder:
    def test_run_folder_has_everything_for_later_commands(self, scenes: Path, teacher_run: Path) -> None:
        record = read_run(teacher_run)
        assert {path.name for path in teacher_run.iterdir()} == {"run.json", METRICS, BEST, LAST}
        assert (record.kind, record.labels, record.teacher) == ("train", CLASSES, None)
        assert record.model == ModelSpec(SMALL, 3)
        assert (record.input.height, record.input.width) == (32, 32)
        assert record.data["source"] == str(scenes.resolve())
        assert (record.data["train"], record.data["val"], record.data["split"]) == (48, 18, "folders")
        assert record.request == {"data": str(scenes), "model": SMALL, "epochs": 4, "batch_size": 16}
        assert record.result is not None and record.result["last"]["epoch"] == 4

    def test_distilled_run_records_its_teacher(self, tiny: Path, teacher_run: Path, tmp_path: Path) -> None:
        request = TrainConfig(str(tiny), "small:resnet14", teacher=(str(teacher_run),), epochs=1)
        record = start_run(request, tmp_path / "run", Listener(), "cpu")
        assert record.kind == "distill"
        assert record.teacher is not None
        assert (record.teacher["source"], record.teacher["weights"]) == (str(teacher_run.resolve()), None)

    def test_equal_requests_give_equal_runs(self, tiny: Path, tmp_path: Path) -> None:
        """Independent of random numbers drawn earlier in the process."""
        request = TrainConfig(str(tiny), SMALL, epochs=2, batch_size=4, seed=5)
        for name in ("a", "b"):
            start_run(request, tmp_path / name, Listener(), "cpu")
            torch.manual_seed(77)
        ours, theirs = load_file(tmp_path / "a" / LAST), load_file(tmp_path / "b" / LAST)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        start_run(TrainConfig(str(tiny), SMALL, epochs=2, batch_size=4, seed=6), tmp_path / "c", Listener(), "cpu")
        assert not torch.equal(ours["model.conv1.weight"], load_file(tmp_path / "c" / LAST)["model.conv1.weight"])


class TestPlan:
    def test_plan_is_reported_before_training(self, tiny: Path, teacher_run: Path, tmp_path: Path) -> None:
        listener = Listener()
        request = TrainConfig(str(tiny), SMALL, teacher=(str(teacher_run),), epochs=1, temperature=3.0)
        start_run(request, tmp_path / "run", listener, "cpu")
        plan = dict(listener.plan)
        assert plan["samples"] == "12 for training, 6 for validation, 3 classes"
        assert re.search(r"\(1\.0 times the student's\), \d+\.\d% top-1 here$", plan["teacher"])
        assert plan["input"] == "32 × 32 px (as the teacher's)"
        assert plan["map"] == "8 × 8 (stem unchanged)"
        assert plan["loss"] == "0.1·ce + 0.9·kd + 20·mapall, temperature 3"
        assert plan["schedule"].startswith("1 epoch (as requested), batch size 12, SGD with learning rate ")

    def test_network_for_larger_images_gets_a_finer_map(self, tiny: Path, tmp_path: Path) -> None:
        listener = Listener()
        record = start_run(TrainConfig(str(tiny), "resnet10w16", epochs=1), tmp_path / "run", listener, "cpu")
        assert record.model == ModelSpec("small:resnet10w16", 3, 2)
        assert dict(listener.plan)["map"] == "8 × 8 (early strides removed, 2 times finer)"

    def test_default_epochs_fit_the_machine(self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("kdedge.training.resolution.seconds_per_epoch", lambda *_: 300.0)
        listener = Listener()
        record = start_run(TrainConfig(str(tiny), SMALL), tmp_path / "run", listener, "cpu")
        assert record.recipe["epochs"] == 3
        assert any(
            re.match(r"Only 3 epochs fit .*--epochs 30 \(about 150 minutes\)", line) for line in listener.warnings
        )

    def test_requested_stride_is_met_exactly(self, tiny: Path, tmp_path: Path) -> None:
        listener = Listener()
        start_run(TrainConfig(str(tiny), SMALL, epochs=1, output_stride=2), tmp_path / "run", listener, "cpu")
        assert dict(listener.plan)["map"] == "16 × 16 (as requested)"

    @pytest.mark.parametrize("as_teacher", [True, False])
    def test_assumed_preprocessing_is_in_the_plan(self, tiny: Path, tmp_path: Path, as_teacher: bool) -> None:
        """MobileNetV2's published weights use two kinds of preprocessing."""
        name, weights, listener = "torchvision:mobilenet_v2", tmp_path / "w.safetensors", Listener()
        save_file(build_model(ModelSpec(name, 3), 32).state_dict(), weights)
        if as_teacher:
            given = {"model": SMALL, "teacher": (name,), "teacher_weights": (str(weights),), "loss": "ce:0.1,kd:0.9"}
        else:
            given = {"model": name, "weights": str(weights)}
        record = start_run(TrainConfig(str(tiny), size=32, epochs=1, **given), tmp_path / "run", listener, "cpu")
        assert record.input.crop_fraction == pytest.approx(224 / 232)
        assert dict(listener.plan)["preprocessing"].startswith("assumed as for IMAGENET1K_V2, 224 of 232 px, bilinear")


class TestWeights:
    def test_training_starts_from_weights_with_a_new_classifier(self, tiny: Path, tmp_path: Path) -> None:
        trained = build_model(ModelSpec(SMALL, 10, fresh_stem=False), 32)
        save_file(trained.state_dict(), tmp_path / "w.safetensors")
        request = TrainConfig(str(tiny), SMALL, weights=str(tmp_path / "w.safetensors"), epochs=1, lr=1e-8)
        start_run(request, tmp_path / "run", Listener(), "cpu")
        state = load_file(tmp_path / "run" / LAST)
        assert torch.allclose(state["model.conv1.weight"], trained.conv1.weight, atol=1e-5)
        assert state["model.linear.weight"].shape == (3, 64)

    def test_weights_of_a_wider_network_are_rejected(self, tiny: Path, tmp_path: Path) -> None:
        wide = {name: value.repeat(2, *[1] * (value.ndim - 1)) if value.ndim else value
                for name, value in build_model(ModelSpec(SMALL, 3), 32).state_dict().items()}  # fmt: skip
        save_file(wide, tmp_path / "w.safetensors")
        request = TrainConfig(str(tiny), SMALL, weights=str(tmp_path / "w.safetensors"), epochs=1)
        with pytest.raises(UsageError, match=r"do not fit SmallResNet: tensors \d+ with another shape"):
            start_run(request, tmp_path / "run", Listener(), "cpu")


def refused(tmp_path: Path, request: TrainConfig, message: str, error: type[Exception] = UsageError) -> None:
    with pytest.raises(error, match=message) as caught:
        start_run(request, tmp_path / "refused", Listener(), "cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused").exists(), "nothing is written"


class TestRefused:
    def test_teacher_with_another_number_of_classes(self, teacher_run: Path, tmp_path: Path) -> None:
        data = write_scenes(tmp_path / "data", (*CLASSES, "mug"), train=2, val=1)
        request = TrainConfig(str(data), SMALL, teacher=(str(teacher_run),), epochs=1)
        refused(tmp_path, request, r"has 3 classes, but .* has 4 \(only the data has \w+\)\. .*kdedge train")

    def test_teacher_of_other_classes(self, teacher_run: Path, tmp_path: Path) -> None:
        data = write_scenes(tmp_path / "data", (*CLASSES[:2], "mug"), train=2, val=1)
        request = TrainConfig(str(data), SMALL, teacher=(str(teacher_run),), epochs=1)
        refused(tmp_path, request, r"trained on classes that differ from those in .*\(key, mug are not in both\)")

    def test_named_teacher_without_weights(self, tiny: Path, tmp_path: Path) -> None:
        request = TrainConfig(str(tiny), SMALL, teacher=("small:resnet20",), epochs=1)
        refused(tmp_path, request, r"small:resnet20 has no published weights\. .*--teacher-weights FILE")

    def test_missing_teacher_run(self, tiny: Path, tmp_path: Path) -> None:
        request = TrainConfig(str(tiny), SMALL, teacher=("runs/teacher21",), epochs=1)
        refused(tmp_path, request, "runs/teacher21 does not exist. Expected a run")

    def test_named_teacher_with_weights_of_other_classes(self, tiny: Path, tmp_path: Path) -> None:
        save_file(build_model(ModelSpec("small:resnet14", 7), 32).state_dict(), tmp_path / "w.safetensors")
        weights = str(tmp_path / "w.safetensors")
        request = TrainConfig(str(tiny), SMALL, teacher=("small:resnet14",), teacher_weights=(weights,), epochs=1)
        again = rf"kdedge train {tiny} --model small:resnet14 --weights {weights}"
        refused(tmp_path, request, f"has 7 classes, but .* has 3.*{again}")

    @pytest.mark.parametrize("loss", ["kd", "ce,map", "mapall"])
    def test_loss_that_needs_a_teacher(self, tiny: Path, tmp_path: Path, loss: str) -> None:
        refused(tmp_path, TrainConfig(str(tiny), SMALL, loss=loss, epochs=1), "needs a teacher.*kdedge distill")

    @pytest.mark.parametrize("loss", [None, "kd,map", "map,mapall"])
    def test_map_term_for_a_student_without_map(
        self, tiny: Path, teacher_run: Path, tmp_path: Path, loss: str | None
    ) -> None:
        student = write_unexplainable(tmp_path / "flat.py")
        request = TrainConfig(str(tiny), student, teacher=(str(teacher_run),), loss=loss, epochs=1)
        terms = ", ".join(term for term in (loss or "mapall").split(",") if "map" in term)
        refused(tmp_path, request, rf"loss term {terms} compares.*the student has none: Sequential.*--loss ce:0\.1,kd")

    def test_student_without_map_is_accepted_without_map_terms(
        self, tiny: Path, teacher_run: Path, tmp_path: Path
    ) -> None:
        student = write_unexplainable(tmp_path / "flat.py")
        request = TrainConfig(str(tiny), student, teacher=(str(teacher_run),), loss="ce,kd", epochs=1, batch_size=6)
        record = start_run(request, tmp_path / "run", Listener(), "cpu")
        assert record.result is not None
        assert "val_agreement" in record.result["last"] and "val_map_pearson" not in record.result["last"]

    def test_unknown_loss_term(self, tiny: Path, teacher_run: Path, tmp_path: Path) -> None:
        request = TrainConfig(str(tiny), SMALL, teacher=(str(teacher_run),), loss="ce,mapal", epochs=1)
        refused(tmp_path, request, r"Unknown loss term 'mapal'.*Did you mean mapall\?")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"lr": float("nan")}, r"--lr is nan\. Expected a number above zero and below 1e\+09, such as 0\.05\."),
            ({"lr": 1e308}, r"--lr is 1e\+308\. Expected a number above zero and below 1e\+09"),
            (
                {"temperature": float("inf")},
                r"--temperature is inf\. Expected a number above zero and below 1e\+09",
            ),
            ({"weights": "w.pth", "init": "teacher"}, r"both w\.pth and its teacher\. Remove"),
        ],
        ids=["nan", "1e308", "inf", "two initializations"],
    )
    def test_invalid_or_contradictory_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            TrainConfig("photos", SMALL, teacher=("runs/teacher",), **options)

    @pytest.mark.parametrize("stride", [3, 64])
    def test_unsupported_stride(self, tiny: Path, tmp_path: Path, stride: int) -> None:
        refused(
            tmp_path, TrainConfig(str(tiny), SMALL, output_stride=stride, epochs=1), f"cannot be changed to {stride}"
        )

    def test_too_coarse_map(self, tiny: Path, tmp_path: Path) -> None:
        request = TrainConfig(str(tiny), "small:resnet10w16", size=16, output_stride=8, epochs=1)
        refused(tmp_path, request, r"only 2 × 2.*--size")

    def test_too_small_images_for_the_network(self, tiny: Path, tmp_path: Path) -> None:
        refused(
            tmp_path,
            TrainConfig(str(tiny), "alexnet", pretrained=False, epochs=1),
            "AlexNet does not accept images of 32 × 32 px",
        )

    def test_no_validation_images(self, tmp_path: Path) -> None:
        for label in "ab":
            (tmp_path / "data" / label).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(tmp_path / "data" / label / "1.png")
        request = TrainConfig(str(tmp_path / "data"), SMALL, epochs=1)
        refused(tmp_path, request, "none is left for validation", DataError)

    def test_missing_cuda_device(self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        for device, message in (("cuda", "no CUDA device"), ("gpu", "Unknown device 'gpu'")):
            with pytest.raises(UsageError, match=message):
                start_run(TrainConfig(str(tiny), SMALL, epochs=1), tmp_path / "refused", Listener(), device)

    def test_folder_with_a_run(self, tiny: Path, teacher_run: Path) -> None:
        before = (teacher_run / "run.json").read_bytes()
        with pytest.raises(UsageError, match=r"already holds a run, which is complete\. .*--out"):
            start_run(TrainConfig(str(tiny), SMALL, epochs=1), teacher_run, Listener(), "cpu")
        assert (teacher_run / "run.json").read_bytes() == before
