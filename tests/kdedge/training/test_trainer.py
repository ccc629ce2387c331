"""Training loop: its inputs, what it leaves unchanged, and when it stops."""

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from training_toys import CLASSES, SIDE, TRAIN, Listener, tiny_config, tiny_trainer

from kdedge.config.resolved_config import ResolvedConfig
from kdedge.losses import LOSS_TERMS
from kdedge.losses.loss_inputs import LossInputs
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import BEST, LAST, METRICS
from kdedge.training import checkpoint, evaluator, measurements, trainer
from kdedge.training.augmentation import Augmentation, photometric
from kdedge.training.epoch import TrainState, train_epoch
from kdedge_runtime.errors import KdedgeError

STILL = Augmentation(shift=0.0, flip=False, photometric=0.0)
MIXED = Augmentation(geometry=0.5, erase=0.5, mixup=1.0, cutmix=1.0)
RECIPE = tiny_config(epochs=2, batch_size=16, learning_rate=0.05, loss={"ce": 1.0})


def taught(terms: str = "ce kd mapall", **settings: Any) -> ResolvedConfig:
    return replace(RECIPE, loss=dict.fromkeys(terms.split(), 1.0), **settings)


def a_teacher(model: str = "small:resnet14") -> nn.Module:
    torch.manual_seed(5)
    return build_model(ModelSpec(model, len(CLASSES)), SIDE)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def differing(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    return [name for name in before if not torch.equal(before[name], after[name])]


class TestEpochs:
    def test_each_image_is_used_once_per_epoch_in_random_order(self, scenes: Path) -> None:
        trainer = tiny_trainer(scenes, replace(RECIPE, augmentation=STILL))
        pictures = trainer.batches.samples.pixels
        orders = []
        for epoch in (0, 1):
            batches = list(trainer.batches.of(epoch))
            assert [len(batch.samples) for batch in batches] == [16, 16, 16]
            order = []
            for batch in batches:
                for image, target in zip(batch.samples, batch.targets, strict=True):
                    index = int((pictures == image).flatten(1).all(dim=1).nonzero())
                    assert trainer.batches.samples.targets[index] == target.argmax()
                    order.append(index)
            assert sorted(order) == list(range(TRAIN * len(CLASSES)))
            orders.append(order)
        assert orders[0] != orders[1] != sorted(orders[1])

    def test_incomplete_last_batch_is_dropped_unless_it_is_the_only_one(self, scenes: Path) -> None:
        assert tiny_trainer(scenes, replace(RECIPE, batch_size=20)).batches.per_epoch == 2
        alone = tiny_trainer(scenes, replace(RECIPE, batch_size=500))
        assert [len(batch.samples) for batch in alone.batches.of(0)] == [48]

    def test_each_epoch_writes_a_line_of_metrics(self, scenes: Path, tmp_path: Path) -> None:
        trainer, listener = tiny_trainer(scenes, taught("ce kd map"), teacher=a_teacher()), Listener()
        result = trainer.run(tmp_path, listener, resume=False)
        lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
        assert lines == listener.epochs
        assert [line["epoch"] for line in lines] == [1, 2]
        assert listener.steps == 6
        for line in lines:
            assert line["loss"] == pytest.approx(line["loss_ce"] + line["loss_kd"] + line["loss_map"], rel=1e-5)
            assert 0 <= line["val_top1"] <= 1
            assert 0 <= line["val_agreement"] <= 1
            assert -1 <= line["val_map_pearson"] <= 1
        assert result["last"] == lines[-1]
        assert result["best"] in lines
        assert result["seconds"] == pytest.approx(sum(line["seconds"] for line in lines), abs=0.06)

    def test_validation_metrics_belong_to_the_saved_weights(self, scenes: Path, tmp_path: Path) -> None:
        trainer = tiny_trainer(scenes, replace(RECIPE, epochs=3))
        result = trainer.run(tmp_path, Listener(), resume=False)
        for name, which in ((BEST, "best"), (LAST, "last")):
            state = load_file(tmp_path / name)
            student = trainer.train_step.student.eval()
            student.model.load_state_dict(
                {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
            )
            with torch.no_grad():
                hits = student(trainer.evaluator.val.pixels).logits.argmax(dim=1) == trainer.evaluator.val.targets
            assert hits.float().mean().item() == pytest.approx(result[which]["val_top1"])

    @pytest.mark.parametrize(
        ("figures", "best"),
        [
            ([{"val_top1": 0.3}, {"val_top1": 0.6}, {"val_top1": 0.5}], 2),
            ([{"val_agreement": 0.3}, {"val_agreement": 0.3}, {"val_agreement": 0.4}], 3),
            ([{"val_map_pearson": 0.1}, {"val_map_pearson": 0.3}, {"val_map_pearson": -0.2}], 2),
            ([{"val_loss": 1.0}, {"val_loss": 0.8}, {"val_loss": 0.9}], 2),
            ([{}, {}, {}], 1),
        ],
        ids=["accuracy", "then agreement", "then the maps", "then the loss", "then the earlier one"],
    )
    def test_best_epoch_is_saved(
        self,
        scenes: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        figures: list[dict[str, float]],
        best: int,
    ) -> None:
        equal = {"val_top1": 0.5, "val_agreement": 0.5, "val_map_pearson": 0.5, "val_loss": 1.0}
        script = iter(figures)
        monkeypatch.setattr(evaluator.Evaluator, "validate", lambda *_: equal | next(script))
        weights = []

        class Keeper(Listener):
            def on_epoch(self, metrics: dict[str, Any]) -> None:
                weights.append(load_file(tmp_path / LAST)["model.conv1.weight"])

        result = tiny_trainer(scenes, replace(RECIPE, epochs=3)).run(tmp_path, Keeper(), resume=False)
        assert result["best"]["epoch"] == best
        assert torch.equal(load_file(tmp_path / BEST)["model.conv1.weight"], weights[best - 1])

    def test_loss_is_the_weighted_sum_of_terms(
        self, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in (("ce", 3), ("kd", 5)):
            constant = replace(
                LOSS_TERMS[name], compute=lambda inputs, value=value: 0 * inputs.student.logits.sum() + value
            )
            monkeypatch.setitem(LOSS_TERMS._loaded, name, constant)
        recipe = replace(RECIPE, epochs=1, loss={"kd": 0.5, "ce": 4.0})
        (line,) = [tiny_trainer(scenes, recipe, teacher=a_teacher()).run(tmp_path, Listener(), resume=False)["last"]]
        assert (line["loss_ce"], line["loss_kd"], line["loss"]) == (3, 5, 0.5 * 5 + 4.0 * 3)

    def test_steps_do_not_synchronize(self, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Values are read a fixed number of times per epoch, independent of the number of steps."""

        def one_hot(targets: Tensor, classes: int) -> Tensor:
            """Skip the range check of targets, as on CUDA."""
            return torch.zeros(*targets.shape, classes, dtype=torch.int64).scatter_(-1, targets[..., None], 1)

        monkeypatch.setattr(F, "one_hot", one_hot)
        monkeypatch.setattr(photometric, "_has_static_shapes", lambda _: True)  # as on CUDA
        counts = []
        for batch_size in (24, 6):
            recipe = taught("ce kd dkd dist at hint cat e2 map mapall", augmentation=MIXED, batch_size=batch_size)
            trainer = tiny_trainer(scenes, recipe, teacher=a_teacher())
            with Reads() as reads:
                train_epoch(trainer.train_step, trainer.batches, recipe, TrainState())
            counts.append(reads.count)
        assert counts[0] == counts[1] > 0


class Reads(TorchDispatchMode):
    """Dispatch mode that counts reads of tensor values by the host."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += any(name in str(function) for name in ("_local_scalar_dense", "nonzero", "masked_select"))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_terms_receive_float32_under_bfloat16(name: str, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[set[torch.dtype], bool]] = []
    compute = LOSS_TERMS[name].compute

    @functools.wraps(compute)
    def spy(inputs: LossInputs, **settings: float) -> Tensor:
        given = [inputs.targets, *inputs.projected]
        for prediction in (inputs.student, inputs.teacher):
            if prediction is not None:
                given += [
                    prediction.logits,
                    *prediction.features,
                    *([] if prediction.maps is None else [prediction.maps]),
                ]
        seen.append(({tensor.dtype for tensor in given}, torch.is_autocast_enabled("cpu")))
        return compute(inputs, **settings)

    monkeypatch.setitem(LOSS_TERMS._loaded, name, replace(LOSS_TERMS[name], compute=spy))
    values = {}
    for bf16 in (False, True):
        trainer = tiny_trainer(scenes, taught(name), teacher=a_teacher(), bf16=bf16)
        batch = next(trainer.batches.of(0))
        values[bf16] = trainer.train_step.terms(batch.samples, batch.targets, batch.teacher_output)
    assert seen == [({torch.float32}, False)] * 2
    assert values[True].dtype == torch.float32
    assert values[True].item() != values[False].item(), "forward passes are rounded"
    assert values[True].item() == pytest.approx(values[False].item(), rel=0.1)


class TestTeacher:
    def test_teacher_is_unchanged(self, scenes: Path, tmp_path: Path) -> None:
        teacher = a_teacher()
        before = snapshot(teacher)
        tiny_trainer(scenes, taught(epochs=1), teacher=teacher).run(tmp_path, Listener(), resume=False)
        assert not differing(before, teacher.state_dict()), "neither weights nor running statistics"
        assert all(parameter.grad is None for parameter in teacher.parameters())
        assert not teacher.training

    def test_student_of_equal_architecture_learns_to_agree(self, scenes: Path, tmp_path: Path) -> None:
        recipe = taught("kd mapall", epochs=6, augmentation=STILL)
        listener = Listener()
        tiny_trainer(scenes, recipe, teacher=a_teacher("small:resnet8")).run(tmp_path, listener, resume=False)
        first, last = listener.epochs[0], listener.epochs[-1]
        assert last["loss_mapall"] < 0.8 * first["loss_mapall"]
        assert last["val_map_pearson"] > first["val_map_pearson"] + 0.1


class TestMeasurement:
    @pytest.mark.parametrize("model", ["small:resnet8", "torchvision:mobilenet_v3_small"])
    def test_measurement_does_not_change_the_run(self, scenes: Path, tmp_path: Path, model: str) -> None:
        """A run after a measurement equals one without, bit for bit: weights, batch statistics and dropout."""
        recipe = taught("ce kd mapall", epochs=1, batch_size=24)
        finished = []
        for measured in (False, True):
            folder = tmp_path / str(measured)
            folder.mkdir()
            trainer = tiny_trainer(scenes, recipe, model=model, teacher=a_teacher())
            before = snapshot(trainer.train_step.student.model)
            random_state = torch.get_rng_state()
            if measured:
                assert measurements.seconds_per_epoch(trainer.train_step, trainer.batches, steps=2) > 0
                assert not differing(before, trainer.train_step.student.model.state_dict())
                assert torch.equal(random_state, torch.get_rng_state())
                assert all(parameter.grad is None for parameter in trainer.train_step.student.model.parameters())
                assert not trainer.train_step.optimizer.state
            trainer.run(folder, Listener(), resume=False)
            finished.append(load_file(folder / LAST))
        assert not differing(*finished)

    def test_measured_term_is_its_mean_over_the_first_batches(
        self, scenes: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = iter([1.0, 2.0, 6.0, 7.0, 100.0])
        growing = replace(LOSS_TERMS["kd"], compute=lambda inputs: 0 * inputs.student.logits.sum() + next(sizes))
        monkeypatch.setitem(LOSS_TERMS._loaded, "kd", growing)
        trainer = tiny_trainer(scenes, taught("kd", batch_size=8), teacher=a_teacher())
        assert measurements.measure_loss_scales(trainer.train_step, trainer.batches) == [4.0]

    @pytest.mark.parametrize("batches", [4, 1])
    def test_epoch_time_is_the_median_step_time_times_steps(
        self, scenes: Path, monkeypatch: pytest.MonkeyPatch, batches: int
    ) -> None:
        """Small datasets have one batch per epoch, and the first step may fill the teacher cache."""
        trainer = tiny_trainer(scenes, replace(RECIPE, batch_size=48 // batches))
        clock = iter([0.0, 60.0, *(100.0 * step + end for step in range(1, 6) for end in (0.0, 2.0))])
        monkeypatch.setattr(measurements.time, "perf_counter", lambda: next(clock))
        assert measurements.seconds_per_epoch(trainer.train_step, trainer.batches) == batches * 2.0


class Poison(Listener):
    """Listener that corrupts the student after a step."""

    def __init__(self, student: nn.Module, epoch: int, step: int, value: float) -> None:
        super().__init__()
        self.student, self.when, self.value = student, (epoch, step), value

    def on_step(self, epoch: int, step: int, steps: int, parts: Tensor) -> None:
        if (epoch, step) == self.when:
            with torch.no_grad():
                next(self.student.parameters())[0, 0, 0, 0] = self.value


class TestNotANumber:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("step", [1, 3], ids=["in the middle", "in the last step"])
    def test_non_finite_loss_stops_the_run_and_keeps_the_checkpoint(
        self, scenes: Path, tmp_path: Path, value: float, step: int
    ) -> None:
        trainer = tiny_trainer(scenes, replace(RECIPE, epochs=4))
        good: dict[str, bytes] = {}

        class Watcher(Poison):
            def on_epoch(self, metrics: dict[str, Any]) -> None:
                good.update({name: (tmp_path / name).read_bytes() for name in (BEST, LAST, METRICS)})

        with pytest.raises(KdedgeError, match=r"not finite in epoch 2.*kept.*--lr 0\.0125") as caught:
            trainer.run(tmp_path, Watcher(trainer.train_step.student, 1, step, value), resume=False)
        assert "\n" not in str(caught.value)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == good
        assert all(value.isfinite().all() for value in load_file(tmp_path / LAST).values())

    def test_too_high_rate_is_an_error(self, scenes: Path, tmp_path: Path) -> None:
        trainer = tiny_trainer(scenes, replace(RECIPE, learning_rate=1e20))
        with pytest.raises(KdedgeError, match=r"not finite in epoch 1[^.]*\. Start again"):
            trainer.run(tmp_path, Listener(), resume=False)
        assert not (tmp_path / LAST).exists()


def test_full_disk_keeps_the_previous_checkpoint(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = tiny_trainer(scenes, replace(RECIPE, epochs=3))
    saved: list[bytes] = []
    save_file = checkpoint.save_file

    def filling_up(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        if json.loads(metadata["kdedge"]).get("history", [{}])[-1].get("epoch") == 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save_file(tensors, path, metadata=metadata)
        saved.append(path.read_bytes())

    monkeypatch.setattr(checkpoint, "save_file", filling_up)
    with pytest.raises(KdedgeError, match=r"last\.safetensors.*No space left"):
        trainer.run(tmp_path, Listener(), resume=False)
    assert (tmp_path / LAST).read_bytes() in saved
    assert {path.name for path in tmp_path.iterdir()} == {BEST, LAST, METRICS}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full of Linux")
def test_unwritable_metrics_file_is_named(scenes: Path, tmp_path: Path) -> None:
    class Filler(Listener):
        def on_step(self, epoch: int, step: int, steps: int, parts: Tensor) -> None:
            if epoch == 1:
                (tmp_path / METRICS).unlink(missing_ok=True)
                (tmp_path / METRICS).symlink_to("/dev/full")

    with pytest.raises(KdedgeError, match=r"Cannot write .*metrics\.jsonl: .*No space left.*kept.*--resume"):
        tiny_trainer(scenes, replace(RECIPE, epochs=3)).run(tmp_path, Filler(), resume=False)
    (tmp_path / METRICS).unlink()
    result = tiny_trainer(scenes, replace(RECIPE, epochs=3)).run(tmp_path, Listener(), resume=True)
    assert result is not None and result["last"]["epoch"] == 3
    assert [json.loads(line)["epoch"] for line in (tmp_path / METRICS).read_text().splitlines()] == [1, 2, 3]


def test_complete_run_trains_no_more(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tiny_trainer(scenes, RECIPE).run(tmp_path, Listener(), resume=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(trainer, "train_epoch", None)
    again, listener = tiny_trainer(scenes, RECIPE, seed=1), Listener()
    assert again.run(tmp_path, listener, resume=True) == result
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert not listener.epochs
