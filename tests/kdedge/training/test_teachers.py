"""Teachers: networks, ensembles and model files, and the layers that are compared."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from training_toys import CLASSES, SIDE, Listener, write_foreign_file, write_scenes

from kdedge.config.train_config import TrainConfig
from kdedge.data import FileSample, index_dataset
from kdedge.losses.loss_inputs import ModelOutput
from kdedge.losses.map_distance import pearson
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import read_run, write_run
from kdedge.training.compute_device import choose_device
from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.layer_pairs import channels, pair_layers, stages
from kdedge.training.teachers.teacher import NetworkTeacher, TeacherEnsemble
from kdedge.training.training_run import continue_run, start_run
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.modalities.image import ImageInput

SMALL = "small:resnet8"
CPU = choose_device("cpu")


def watched(name: str, classes: int = 5, size: int = SIDE, seed: int = 0) -> InstrumentedModel:
    torch.manual_seed(seed)
    return wrapped(build_model(ModelSpec(name, classes), size), size)


def wrapped(model: nn.Module, size: int = SIDE) -> InstrumentedModel:
    return InstrumentedModel(model, ImageInput(size, size, (0.5,) * 3, (0.25,) * 3), CPU)


def pictures(count: int = 4, size: int = SIDE) -> Tensor:
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


class TestNetwork:
    def test_evaluation_mode_without_gradients(self) -> None:
        student = watched(SMALL).train()
        teacher = NetworkTeacher(student, CPU)
        prediction = teacher(pictures(), 2)
        assert not prediction.logits.requires_grad and not student.training
        assert torch.equal(prediction.logits, teacher(pictures()).logits)

    def test_maps_are_of_the_most_probable_classes_in_order(self) -> None:
        teacher = NetworkTeacher(watched(SMALL), CPU)
        prediction = teacher(pictures(), 3)
        assert prediction.classes is not None and prediction.maps is not None
        assert torch.equal(prediction.classes, prediction.logits.argsort(dim=1, descending=True)[:, :3])
        for rank in range(3):
            single = teacher(pictures(), prediction.classes[:, [rank]])
            assert single.maps is not None
            assert torch.allclose(single.maps[:, 0], prediction.maps[:, rank], atol=1e-6)

    def test_number_of_maps_is_limited_by_classes(self) -> None:
        prediction = NetworkTeacher(watched(SMALL), CPU)(pictures(), 99)
        assert prediction.maps is not None and prediction.maps.shape == (4, 5, 8, 8)

    def test_no_maps_are_computed_if_none_are_requested(self) -> None:
        prediction = NetworkTeacher(watched(SMALL), CPU)(pictures())
        assert (prediction.classes, prediction.maps) == (None, None)


class TestSeveral:
    def members(self) -> list[NetworkTeacher]:
        return [NetworkTeacher(watched(name, seed=seed), CPU) for name, seed in ((SMALL, 1), ("small:resnet14", 2))]

    def test_ensemble_is_the_mean_of_probabilities(self) -> None:
        members = self.members()
        expected = torch.stack([member(pictures()).logits.softmax(dim=1) for member in members]).mean(dim=0)
        assert torch.allclose(
            TeacherEnsemble(members, "classify")(pictures()).logits.softmax(dim=1), expected, atol=1e-6
        )

    def test_ensemble_of_equal_teachers_equals_one(self) -> None:
        alone = NetworkTeacher(watched(SMALL), CPU)
        one, two = alone(pictures(), 2), TeacherEnsemble([alone, alone], "classify")(pictures(), 2)
        assert one.maps is not None and two.maps is not None and one.classes is not None and two.classes is not None
        assert torch.equal(one.classes, two.classes)
        assert pearson(one.maps.flatten(2), two.maps.flatten(2)).min() > 0.9999

    def test_maps_are_normalized_before_averaging(self) -> None:
        quiet, loud = self.members()
        both = TeacherEnsemble([quiet, Louder(loud)], "classify")(pictures(), 2)
        plain = TeacherEnsemble([quiet, loud], "classify")(pictures(), both.classes if both.classes is not None else 2)
        assert both.maps is not None and plain.maps is not None
        assert torch.allclose(both.maps, plain.maps, atol=1e-5)

    def test_maps_of_different_sizes_are_pooled(self) -> None:
        members = [NetworkTeacher(watched(SMALL), CPU), NetworkTeacher(watched("torchvision:resnet18", size=64), CPU)]
        maps = TeacherEnsemble(members, "classify")(pictures(), 1).maps
        assert maps is not None and maps.shape[2:] == members[1](pictures(), 1).maps.shape[2:]  # type: ignore[union-attr]


class Louder:
    """Teacher whose maps are scaled by a thousand."""

    unexplained, most_maps = None, None

    def __init__(self, teacher: NetworkTeacher) -> None:
        self.teacher = teacher

    def __call__(self, images: Tensor, wanted: int | Tensor = 0) -> ModelOutput:
        prediction = self.teacher(images, wanted)
        return replace(prediction, maps=None if prediction.maps is None else 1000 * prediction.maps)


class TestLayers:
    def test_last_layer_of_each_resolution_ends_a_stage(self) -> None:
        assert stages(watched("small:resnet20")) == ["layer1", "layer2", "layer3"]
        assert stages(watched("torchvision:resnet18", size=64)) == ["relu", "layer1", "layer2", "layer3", "layer4"]

    @pytest.mark.parametrize(
        ("name", "last"),
        [
            ("torchvision:resnet50", ["layer2", "layer3", "layer4"]),
            ("torchvision:mobilenet_v2", ["features.6", "features.13", "features"]),
            ("torchvision:efficientnet_b0", ["features.3", "features.5", "features"]),
            ("timm:efficientnet_lite0", ["blocks.2", "blocks.4", "bn2"]),
        ],
    )
    def test_downsampling_block_belongs_to_the_next_stage(self, name: str, last: list[str]) -> None:
        assert stages(watched(name, size=128))[-3:] == last

    def test_stages_are_paired_from_the_coarsest(self) -> None:
        pairs = pair_layers(watched("small:resnet8"), watched("torchvision:resnet18", size=64), {})
        assert pairs == (("layer1", "layer2"), ("layer2", "layer3"), ("layer3", "layer4"))

    def test_coarsest_stages_are_paired_if_one_network_has_fewer(self) -> None:
        few = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Flatten(), nn.Linear(8 * 64, 5))
        ours, theirs = wrapped(few), watched("torchvision:resnet18", size=64)
        assert pair_layers(ours, theirs, {}) == (("0", "layer3"), ("1", "layer4"))
        assert pair_layers(theirs, ours, {}) == (("layer3", "0"), ("layer4", "1"))

    def test_networks_without_comparable_layers_are_rejected(self) -> None:
        flat = wrapped(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 5)))
        with pytest.raises(UsageError, match=r"no comparable layers.* Remove the terms at and hint\."):
            pair_layers(flat, watched(SMALL), {})

    def test_layers_can_be_given(self) -> None:
        student, teacher = watched("small:resnet8"), watched("small:resnet20")
        assert pair_layers(student, teacher, {"layer2.0": "layer3.1.conv1"}) == (("layer2.0", "layer3.1.conv1"),)
        assert channels(student, ["layer2.0"]) == [32] and channels(teacher, ["layer3.1.conv1"]) == [64]

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"layer9": "layer3"}, r"student has no layer 'layer9' .* end in: layer1, layer2, layer3\."),
            ({"layer3": "linear"}, r"teacher has no layer 'linear' with an output of \[N, C, h, w\]"),
        ],
    )
    def test_missing_layer_is_an_error(self, given: dict[str, str], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            pair_layers(watched("small:resnet8"), watched("small:resnet20"), given)

    def test_features_are_in_the_requested_order_and_the_model_is_unchanged(self) -> None:
        student = watched("small:resnet20").eval()
        plain, names = student(pictures()).logits, [name for name, _ in student.model.named_modules()]
        student.watch(["layer3", "layer1"])
        prediction = student(pictures(), 1)
        assert [tuple(feature.shape) for feature in prediction.features] == [(4, 64, 8, 8), (4, 16, 32, 32)]
        assert torch.equal(plain, prediction.logits)
        assert names == [name for name, _ in student.model.named_modules()]

    def test_features_are_captured_before_in_place_operations(self) -> None:
        """The ReLU after torchvision's batch norm works in place."""
        student = watched("torchvision:resnet18", size=64).eval()
        student.watch(["layer1.0.bn1"])
        assert student(pictures(size=64)).features[0].min() < 0


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "data", train=4, val=2)


class TestRun:
    def test_ensemble_of_two_teachers(self, tiny: Path, teacher_run: Path, tmp_path: Path) -> None:
        request = TrainConfig(str(tiny), SMALL, teacher=(str(teacher_run), str(teacher_run)), epochs=1)
        listener = Listener()
        record = start_run(request, tmp_path / "run", listener, "cpu")
        assert dict(listener.plan)["teachers"].startswith("small:resnet8 + small:resnet8, ensemble ")
        assert record.teacher is not None and len(record.teacher["members"]) == 2
        write_run(tmp_path / "run", replace(read_run(tmp_path / "run"), result=None))
        assert continue_run(request, tmp_path / "run", Listener(), "cpu").result is not None

    def test_onnx_teacher_provides_logits_and_map(self, tiny: Path, exported_run: Path, tmp_path: Path) -> None:
        file = str(exported_run / "model.onnx")
        request = TrainConfig(str(tiny), SMALL, teacher=(file,), loss="ce,kd,map", epochs=1)
        record = start_run(request, tmp_path / "run", Listener(), "cpu")
        assert record.result is not None and "val_map_pearson" in record.result["last"]
        with pytest.raises(UsageError, match=r"map of its top class only.*map:20"):
            start_run(replace(request, loss="kd,mapall"), tmp_path / "refused", Listener(), "cpu")
        with pytest.raises(UsageError, match=r"compares intermediate layers, so it needs a single PyTorch teacher"):
            start_run(replace(request, loss="kd,at"), tmp_path / "refused", Listener(), "cpu")
        with pytest.raises(UsageError, match=r"--init teacher needs a first teacher that is a PyTorch model"):
            start_run(replace(request, init="teacher"), tmp_path / "refused", Listener(), "cpu")
        together = replace(request, teacher=(file, str(exported_run)))
        with pytest.raises(UsageError, match=r"term map .*\.onnx file in an ensemble"):
            start_run(together, tmp_path / "refused", Listener(), "cpu")
        record = start_run(replace(together, loss="ce,kd"), tmp_path / "several", Listener(), "cpu")
        assert record.result is not None and len(record.teacher["members"]) == 2

    def test_onnx_teacher_without_map_is_rejected_for_map_terms(
        self, tiny: Path, exported_run: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "plain.onnx"
        onnx.utils.extract_model(str(exported_run / "model.onnx"), str(file), ["image"], ["logits"])
        request = TrainConfig(str(tiny), SMALL, teacher=(str(file),), loss="ce,kd,map", epochs=1)
        message = (
            r"term map compares saliency maps, but the teacher has none: plain\.onnx has no output saliency_map\. "
            r"To add one: kdedge export .*plain\.onnx -o .*--loss ce:0\.1,kd:0\.9"
        )
        with pytest.raises(UsageError, match=message):
            start_run(request, tmp_path / "refused", Listener(), "cpu")
        record = start_run(replace(request, loss="ce,kd"), tmp_path / "run", Listener(), "cpu")
        assert record.result is not None and "val_map_pearson" not in record.result["last"]

    def test_non_square_teacher_is_a_warning(self, tiny: Path, tmp_path: Path) -> None:
        wide = write_foreign_file(tmp_path / "wide.onnx", SIDE)
        model = onnx.load(wide)
        model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 2 * SIDE
        onnx.save(model, wide)
        for teacher, is_stretched in ((wide, True), (write_foreign_file(tmp_path / "square.onnx", SIDE), False)):
            listener = Listener()
            request = TrainConfig(str(tiny), SMALL, teacher=(str(teacher),), loss="ce,kd", epochs=1)
            start_run(request, tmp_path / teacher.stem, listener, "cpu")
            stretched = [warning for warning in listener.warnings if "stretched" in warning]
            assert bool(stretched) == is_stretched and all(
                "wide.onnx takes images of 64 × 32 px" in one for one in stretched
            )

    def test_student_initialized_from_its_teacher_is_close_to_it(
        self, scenes: Path, teacher_run: Path, tmp_path: Path
    ) -> None:
        request = TrainConfig(str(scenes), SMALL, teacher=(str(teacher_run),), epochs=1, lr=1e-6, seed=5)
        near = start_run(replace(request, init="teacher"), tmp_path / "near", Listener(), "cpu")
        far = start_run(request, tmp_path / "far", Listener(), "cpu")
        assert near.result is not None and far.result is not None
        assert near.result["last"]["val_agreement"] > far.result["last"]["val_agreement"]
        assert near.result["last"]["val_map_pearson"] > 0.9

    def test_initialization_from_the_teacher_is_in_the_plan(
        self, tiny: Path, teacher_run: Path, tmp_path: Path
    ) -> None:
        listener = Listener()
        request = TrainConfig(str(tiny), "small:resnet14", teacher=(str(teacher_run),), epochs=1, init="teacher")
        start_run(request, tmp_path / "run", listener, "cpu")
        assert re.match(r"(\d+) of (\d+) tensors from the teacher, others random", dict(listener.plan)["weights"])

    def test_unused_layers_are_rejected(self, tiny: Path, teacher_run: Path, tmp_path: Path) -> None:
        recipe = tmp_path / "mine.toml"
        recipe.write_text('[loss]\nkd = 1\n[layers]\nlayer1 = "layer1"\n')
        request = TrainConfig(str(tiny), SMALL, teacher=(str(teacher_run),), recipe=str(recipe), epochs=1)
        with pytest.raises(UsageError, match=r"the layers for at, hint, but the loss kd has none"):
            start_run(request, tmp_path / "run", Listener(), "cpu")

    def test_student_and_teacher_may_differ_in_map_size(self, tiny: Path, teacher_run: Path, tmp_path: Path) -> None:
        listener = Listener()
        request = TrainConfig(str(tiny), SMALL, teacher=(str(teacher_run),), loss="ce,cat,e2,map,mapall", epochs=1)
        record = start_run(replace(request, output_stride=2), tmp_path / "run", listener, "cpu")
        assert dict(listener.plan)["map"].startswith("16 × 16 "), "the teacher's map is 8 × 8"
        assert record.result is not None and -1 <= record.result["last"]["val_map_pearson"] <= 1

    def test_unused_teacher_weights_are_rejected(self, tiny: Path, teacher_run: Path, tmp_path: Path) -> None:
        request = TrainConfig(str(tiny), SMALL, teacher=(str(teacher_run),), teacher_weights=("w.pth",), epochs=1)
        with pytest.raises(UsageError, match=r"no teacher for the weights w\.pth"):
            start_run(request, tmp_path / "run", Listener(), "cpu")

    def test_missing_weight_is_measured_and_recorded(self, tiny: Path, teacher_run: Path, tmp_path: Path) -> None:
        listener = Listener()
        request = TrainConfig(str(tiny), SMALL, teacher=(str(teacher_run),), loss="ce,at,cat", epochs=1)
        record = start_run(request, tmp_path / "run", listener, "cpu")
        weights = record.recipe["loss"]
        assert weights["ce"] == 1 and weights["at"] > 10 and weights["cat"] > 0
        assert f"{weights['at']:g}·at (measured)" in dict(listener.plan)["loss"]

    def test_missing_test_images_cost_no_epoch(self, tmp_path: Path) -> None:
        data = write_scenes(tmp_path / "data", train=4, val=2)
        (data / "val").rename(data / "test")
        stored = {path: path.read_bytes() for path in (data / "test").rglob("*.png")}

        class Thief(Listener):
            def on_epoch(self, metrics: dict[str, Any]) -> None:
                super().on_epoch(metrics)
                for path in stored:
                    path.write_bytes(b"")

        request, listener = TrainConfig(str(data), SMALL, epochs=2, batch_size=6), Listener()
        with pytest.raises(DataError, match=r"No test sample .*All epochs are done.*--resume") as caught:
            start_run(request, tmp_path / "run", Thief(), "cpu")
        assert "\n" not in str(caught.value)
        first, *others = stored
        for path in others:
            path.write_bytes(stored[path])
        record = read_run(tmp_path / "run")
        write_run(
            tmp_path / "run", replace(record, data=record.data | {"fingerprint": index_dataset(str(data)).fingerprint})
        )
        assert continue_run(request, tmp_path / "run", listener, "cpu").result["test"]
        assert not listener.epochs
        assert listener.warnings == [f"Test samples: 1 of 6 samples: 1 empty ({first.name}), skipped"]

    def test_test_images_are_read_once_at_the_end(
        self, teacher_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = write_scenes(tmp_path / "data", train=8, val=4)
        (data / "val").rename(data / "test")
        listener, opened, calls = Listener(), [], []
        open_file, evaluate = FileSample.open, NetworkTeacher.__call__

        def opening(sample: FileSample) -> Image.Image:
            opened.append((sample.name.split("/")[0], len(listener.epochs)))
            return open_file(sample)

        def recording(teacher: NetworkTeacher, images: Tensor, wanted: int | Tensor = 0) -> ModelOutput:
            calls.append((len(images), len(listener.epochs)))
            return evaluate(teacher, images, wanted)

        monkeypatch.setattr(FileSample, "open", opening)
        monkeypatch.setattr(NetworkTeacher, "__call__", recording)
        request = TrainConfig(str(data), SMALL, teacher=(str(teacher_run),), epochs=2, batch_size=8)
        record = start_run(request, tmp_path / "run", listener, "cpu")
        assert record.data["train"] + record.data["val"] == 8 * len(CLASSES)
        assert record.result is not None
        for which in ("best", "last"):
            assert set(record.result["test"][which]) == {
                "test_top1", "test_loss", "test_agreement", "test_map_pearson",
            }  # fmt: skip
        assert not any(name.startswith("test_") for line in (record.result["best"],) for name in line)
        tested = [epochs for side, epochs in opened if side == "test"]
        assert tested == [2] * 4 * len(CLASSES), "each image once, after the last epoch"
        assert [count for count, epochs in calls if epochs == 2] == [4 * len(CLASSES)], (
            "the teacher is evaluated on them once"
        )
