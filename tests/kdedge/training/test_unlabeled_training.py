"""Distillation with unlabeled images, and from images without any labels."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from training_toys import CLASSES, SIDE, VAL, Listener, metrics_of, write_foreign_file
from training_toys import kdedge as run_kdedge

import kdedge
from kdedge.models.run_folder import BEST, LAST, TEACHER_CACHE, read_run
from kdedge.pipelines.training_pipeline import Run
from kdedge.tasks import TRAINING_TASKS
from kdedge.training.compute_device import ComputeDevice
from kdedge.training.teachers import confidence
from kdedge_export.scenes import render_scene
from kdedge_runtime import Model
from kdedge_runtime.errors import DataError, UsageError

SMALL, MORE = "small:resnet8", 40


@pytest.fixture(scope="module")
def more(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 40 unlabeled scenes, one of them twice, a copy of a validation image, and a damaged file; read-only."""
    root, rng = tmp_path_factory.mktemp("more"), np.random.default_rng(9)
    for index in range(MORE):
        Image.fromarray(render_scene(CLASSES[index % 3], rng, SIDE).image).save(root / f"{index:02}.png")
    shutil.copy(root / "07.png", root / "twice.png")
    shutil.copy(scenes / "val" / CLASSES[0] / "00.png", root / "leak.png")
    (root / "broken.jpg").write_bytes(b"no image")
    return root


def distill(data: Path, teacher: Path, output: Path, **options: Any) -> Run:
    return kdedge.distill(data, teacher, SMALL, output=output, device="cpu", **({"epochs": 2} | options))


def value_of(listener: Listener, name: str) -> str:
    return dict(listener.plan)[name]


class TestMore:
    def test_unlabeled_images_join_the_training_split(
        self, scenes: Path, teacher_run: Path, more: Path, tmp_path: Path
    ) -> None:
        listener = Listener()
        run = distill(scenes, teacher_run, tmp_path / "run", unlabeled=more, samples_per_class=5, callback=listener)
        data = run.record.data
        assert (data["train"], data["val"], data["samples_per_class"]) == (15 + MORE, 3 * VAL, 5)
        assert data["unlabeled"]["samples"] == MORE and data["unlabeled"]["locations"] == [str(more)]
        assert "15 labeled and 40 unlabeled" in value_of(listener, "samples")
        assert value_of(listener, "unlabeled").startswith("40 of 42; dropped: 1 duplicates, 1 equal")
        assert "40 unlabeled samples" in value_of(listener, "confidence")
        assert any("broken.jpg" in warning for warning in listener.warnings)
        assert {"val_top1", "val_agreement"} <= listener.epochs[-1].keys()

    def test_resumed_run_equals_an_uninterrupted_one(
        self, scenes: Path, teacher_run: Path, more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In memory and streamed, with cross-entropy, mixing and a shuffled order."""
        options: dict[str, Any] = {"unlabeled": [more], "samples_per_class": 5, "epochs": 3, "seed": 1}
        whole = distill(scenes, teacher_run, tmp_path / "whole", **options)
        monkeypatch.setattr(ComputeDevice, "memory_bytes", 0)
        with pytest.raises(KeyboardInterrupt):
            distill(scenes, teacher_run, tmp_path / "parts", callback=_Interrupt(2), **options)
        parts = distill(scenes, teacher_run, tmp_path / "parts", resume=True, **options)
        for name in (BEST, LAST):
            ours, theirs = load_file(parts.folder / name), load_file(whole.folder / name)
            assert not [tensor for tensor in ours if not torch.equal(ours[tensor], theirs[tensor])]
        assert metrics_of(parts.folder) == metrics_of(whole.folder)

    def test_copies_of_left_out_classes_are_not_used(
        self, scenes: Path, teacher_run: Path, more: Path, tmp_path: Path
    ) -> None:
        unlabeled, listener = tmp_path / "more", Listener()
        shutil.copytree(more, unlabeled)
        shutil.copy(scenes / "train" / CLASSES[2] / "00.png", unlabeled / "left-out.png")
        options = {"unlabeled": unlabeled, "leave_out": CLASSES[2:], "loss": "rkd", "epochs": 1}
        run = distill(scenes, teacher_run, tmp_path / "run", callback=listener, **options)
        assert run.record.data["unlabeled"]["samples"] == MORE
        assert "2 equal to held-out" in value_of(listener, "unlabeled")

    def test_run_whose_unlabeled_images_changed_is_not_resumed(
        self, scenes: Path, teacher_run: Path, more: Path, tmp_path: Path
    ) -> None:
        copy = shutil.copytree(more, tmp_path / "copy")
        with pytest.raises(KeyboardInterrupt):
            distill(scenes, teacher_run, tmp_path / "run", unlabeled=copy, callback=_Interrupt(1))
        Image.new("RGB", (SIDE, SIDE)).save(copy / "07.png")
        with pytest.raises(DataError, match="copy have changed"):
            distill(scenes, teacher_run, tmp_path / "run", unlabeled=copy, resume=True)

    def test_cached_teacher_covers_them(self, scenes: Path, teacher_run: Path, more: Path, tmp_path: Path) -> None:
        options: dict[str, Any] = {"unlabeled": more, "cache_teacher": 1, "recipe": "default", "samples_per_class": 5}
        distill(scenes, teacher_run, tmp_path / "run", **options)
        (view,) = (tmp_path / TEACHER_CACHE).rglob("view-0.safetensors")
        assert load_file(view)["logits"].shape == (15 + MORE, 3)
        listener = Listener()
        distill(scenes, teacher_run, tmp_path / "again", callback=listener, seed=5, **options)
        assert listener.evaluated == 0

    def test_head_is_fitted_on_labels_of_labeled_images_alone(
        self, scenes: Path, teacher_run: Path, more: Path, tmp_path: Path
    ) -> None:
        options: dict[str, Any] = {"weights": teacher_run / BEST, "freeze": True, "epochs": None, "loss": "ce,kd"}
        run = distill(scenes, teacher_run, tmp_path / "run", unlabeled=more, **options)
        assert run.record.result is not None
        assert run.record.result["best"]["loss_ce"] < 1.3  # with unlabeled images as class 0 it would be larger

    def test_frames_recorded_on_a_device_are_unlabeled_images(
        self, scenes: Path, teacher_run: Path, exported_run: Path, more: Path, tmp_path: Path
    ) -> None:
        recorded = tmp_path / "recorded"
        done = run_kdedge("run", exported_run / "model.onnx", "--source", more / "0*.png", "--record", recorded)
        assert done.returncode == 0, done.stderr
        assert len(list(recorded.glob("*.jpg"))) == 10
        run = distill(scenes, teacher_run, tmp_path / "run", unlabeled=recorded, epochs=1)
        assert 1 <= run.record.data["unlabeled"]["samples"] <= 10

    def test_low_confidence_is_a_warning(
        self, scenes: Path, teacher_run: Path, more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for ratio in (0.5, 1.5):  # the confidence on unlabeled images of the same kind is about equal
            monkeypatch.setattr(confidence, "_OTHER_DOMAIN", ratio)
            listener = Listener()
            distill(scenes, teacher_run, tmp_path / f"{ratio}", unlabeled=more, epochs=1, callback=listener)
            assert ("another domain" in " ".join(listener.warnings)) == (ratio > 1)


class TestRefusals:
    @pytest.mark.parametrize("loss", ["ce", "ce:0.5"])
    def test_loss_without_the_teacher(
        self, scenes: Path, teacher_run: Path, more: Path, tmp_path: Path, loss: str
    ) -> None:
        with pytest.raises(UsageError, match="does not use the teacher"):
            distill(scenes, teacher_run, tmp_path / "run", unlabeled=more, loss=loss)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(("part", "token"), [("val", "18 equal validation"), ("train", "48 are duplicates")])
    def test_images_of_the_dataset(
        self, scenes: Path, teacher_run: Path, tmp_path: Path, part: str, token: str
    ) -> None:
        with pytest.raises(DataError, match=token):
            distill(scenes, teacher_run, tmp_path / "run", unlabeled=scenes / part)
        assert not (tmp_path / "run").exists()

    def test_task_that_needs_every_label(
        self, scenes: Path, teacher_run: Path, more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(TRAINING_TASKS["classify"], "accepts_unlabeled", False)
        with pytest.raises(UsageError, match="classify needs the label"):
            distill(scenes, teacher_run, tmp_path / "run", unlabeled=more)

    def test_interval_without_videos(self, scenes: Path, teacher_run: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="--unlabeled"):
            distill(scenes, teacher_run, tmp_path / "run", every_s=2)


class TestNoLabels:
    def test_student_learns_from_the_teacher_alone(self, teacher_run: Path, more: Path, tmp_path: Path) -> None:
        listener = Listener()
        run = distill(more, teacher_run, tmp_path / "run", callback=listener)
        record = run.record
        assert (record.labels, record.data["split"]) == (CLASSES, "hashed")
        assert record.data["train"] + record.data["val"] == MORE + 1  # the copy of a scene is dropped
        assert set(record.recipe["loss"]) == {"kd", "mapall"}
        assert record.result is not None
        figures = {name for name in record.result["best"] if name.startswith("val_")}
        assert figures == {"val_agreement", "val_map_pearson"}
        merits = [(epoch["val_agreement"], epoch["val_map_pearson"]) for epoch in listener.epochs]
        assert (record.result["best"]["val_agreement"], record.result["best"]["val_map_pearson"]) == max(merits)
        assert "not tested" in value_of(listener, "teacher")
        assert read_run(run.folder).data == record.data

    def test_run_is_exported_and_validated_without_labels(self, teacher_run: Path, more: Path, tmp_path: Path) -> None:
        run = distill(more, teacher_run, tmp_path / "run")
        kdedge.export(run, precisions=["int8"])
        report = kdedge.validate(run, quick=True).report
        assert report.models["fp32"].accuracy is None
        assert report.comparisons["fp32"].agreement == 1

    def test_model_file_names_no_paths(self, scenes: Path, teacher_run: Path, more: Path, tmp_path: Path) -> None:
        run = distill(scenes, teacher_run, tmp_path / "run", unlabeled=more, epochs=1)
        kdedge.export(run)
        lineage = Model.load(run.folder / "model.onnx").metadata.lineage
        assert lineage is not None and lineage["data"]["unlabeled"]["samples"] == MORE
        assert str(more) not in json.dumps(lineage)

    def test_own_validation_images_are_kept_apart(self, teacher_run: Path, more: Path, tmp_path: Path) -> None:
        data = tmp_path / "data"
        shutil.copytree(more, data / "train")
        (data / "val").mkdir()
        for name in ("00.png", "01.png"):
            shutil.copy(more / name, data / "val" / name)
        listener = Listener()
        record = distill(data, teacher_run, tmp_path / "run", callback=listener).record
        assert (record.data["split"], record.data["train"], record.data["val"]) == ("folders", MORE - 1, 2)
        assert "2 equal to held-out" in value_of(listener, "unlabeled")

    def test_more_unlabeled_images_are_refused(
        self, scenes: Path, teacher_run: Path, more: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match="no class folders"):
            distill(more, teacher_run, tmp_path / "run", unlabeled=scenes)

    def test_run_is_resumed(self, teacher_run: Path, more: Path, tmp_path: Path) -> None:
        whole = distill(more, teacher_run, tmp_path / "whole", epochs=3)
        with pytest.raises(KeyboardInterrupt):
            distill(more, teacher_run, tmp_path / "parts", epochs=3, callback=_Interrupt(1))
        parts = distill(more, teacher_run, tmp_path / "parts", epochs=3, resume=True)
        assert metrics_of(parts.folder) == metrics_of(whole.folder)

    @pytest.mark.parametrize(
        ("options", "token"),
        [
            ({"loss": "ce:0.1,kd:0.9"}, "ce needs labels"),
            ({"recipe": "labels"}, "ce needs labels"),
            ({"samples_per_class": 3}, "no classes"),
        ],
    )
    def test_labels_cannot_be_used(
        self, teacher_run: Path, more: Path, tmp_path: Path, options: dict[str, Any], token: str
    ) -> None:
        with pytest.raises(UsageError, match=token):
            distill(more, teacher_run, tmp_path / "run", **options)
        assert not (tmp_path / "run").exists()

    def test_teacher_without_class_names(self, more: Path, tmp_path: Path) -> None:
        teacher = write_foreign_file(tmp_path / "teacher.onnx", SIDE)
        with pytest.raises(UsageError, match="class names of the teacher"):
            distill(more, teacher, tmp_path / "run", loss="kd")

    def test_labeled_training_still_needs_classes(self, more: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no class folders"):
            kdedge.train(more, SMALL, output=tmp_path / "run")


class _Interrupt(Listener):
    """Listener that interrupts training after an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch(self, metrics: dict[str, Any]) -> None:
        if metrics["epoch"] == self.epoch:
            raise KeyboardInterrupt
