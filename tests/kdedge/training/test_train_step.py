"""Training steps and epoch metrics, recomputed from their definitions."""

import math
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from training_toys import CLASSES, SIDE, Listener, tiny_config, tiny_trainer, write_scenes

from kdedge.config.train_config import TrainConfig
from kdedge.data import index_dataset, load
from kdedge.losses import LOSS_TERMS
from kdedge.losses.loss_inputs import LossInputs, ModelOutput
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import BEST, LAST
from kdedge.training import evaluator
from kdedge.training.augmentation import Augmentation
from kdedge.training.augmentation.augmentation_plan import seed_of
from kdedge.training.distributed import ProcessGroup
from kdedge.training.epoch import TrainState, train_epoch
from kdedge.training.training_run import start_run
from kdedge_runtime.errors import KdedgeError

RECIPE = tiny_config(epochs=3, batch_size=16, learning_rate=0.05, loss={"ce": 1.0})
MOMENTUM = 0.9


def a_teacher() -> nn.Module:
    torch.manual_seed(5)
    return build_model(ModelSpec("small:resnet14", len(CLASSES)), SIDE)


@pytest.mark.parametrize("weights", [(0.3, 2.0), (2.0, 0.0)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_step_follows_the_gradient_with_weight_decay(
    scenes: Path, weights: tuple[float, float], weight_decay: float
) -> None:
    """The first Nesterov step moves by `lr · (1 + momentum) · (gradient + decay · weight)`."""
    recipe = replace(RECIPE, loss=dict(zip(("ce", "kd"), weights, strict=True)), weight_decay=weight_decay)
    trainer = tiny_trainer(scenes, recipe, teacher=a_teacher())
    train_step, batch = trainer.train_step, next(trainer.batches.of(0))
    assert batch.teacher_output is not None
    train_step.student.train()
    before = [parameter.detach().clone() for parameter in train_step.student.model.parameters()]

    logits = train_step.student(batch.samples, 0).logits
    soft = F.softmax(batch.teacher_output.logits / recipe.temperature, dim=1)
    kl = (soft * (soft.log() - F.log_softmax(logits / recipe.temperature, dim=1))).sum(dim=1).mean()
    cross_entropy = -(batch.targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
    loss = weights[0] * cross_entropy + weights[1] * recipe.temperature**2 * kl
    gradients = torch.autograd.grad(loss, list(train_step.student.model.parameters()))

    terms = train_step.learn(batch.samples, batch.targets, batch.teacher_output, torch.tensor(weights), 0.02)
    assert terms.tolist() == pytest.approx([cross_entropy.item(), recipe.temperature**2 * kl.item()], rel=1e-4)
    for start, gradient, parameter in zip(before, gradients, train_step.student.model.parameters(), strict=True):
        expected = -0.02 * (1 + MOMENTUM) * (gradient + weight_decay * start)
        # Running statistics change between the two forward passes, but are not used in training mode.
        torch.testing.assert_close(parameter.detach() - start, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("names", [("mapall", "hint", "dist"), ("at", "map"), ("hint",), ("ce",)])
def test_terms_receive_maps_and_features_of_both_models(scenes: Path, names: tuple[str, ...]) -> None:
    """Terms equal those computed from both networks' outputs and the projected features."""
    recipe = replace(RECIPE, loss=dict.fromkeys(names, 1.0))
    trainer = tiny_trainer(scenes, recipe, teacher=a_teacher())
    train_step, batch = trainer.train_step, next(trainer.batches.of(0))
    train_step.student.train()
    teacher_output = batch.teacher_output
    classes = 0 if teacher_output is None or teacher_output.classes is None else teacher_output.classes
    prediction = train_step.student(batch.samples, classes)
    projected = tuple(
        project(layer) for project, layer in zip(train_step.projections, prediction.features, strict=False)
    )
    assert bool(projected) == ("hint" in names)
    inputs = LossInputs(prediction, teacher_output, batch.targets, recipe.temperature, projected)
    expected = [LOSS_TERMS[name].compute(inputs).item() for name in names]
    found = train_step.learn(batch.samples, batch.targets, teacher_output, torch.ones(len(names)), 0.01)
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_learning_rate_changes_every_step(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPE, batch_size=8, warmup_fraction=0.25)
    trainer = tiny_trainer(scenes, recipe)
    rates: list[float] = []
    learn = trainer.train_step.learn

    def spy(
        images: Tensor, targets: Tensor, teacher_output: ModelOutput | None, weights: Tensor, rate: float
    ) -> Tensor:
        terms = learn(images, targets, teacher_output, weights, rate)
        rates.append(trainer.train_step.optimizer.param_groups[0]["lr"])
        return terms

    monkeypatch.setattr(trainer.train_step, "learn", spy)
    history: tuple[dict[str, Any], ...] = ()
    for _ in range(recipe.epochs):
        done = train_epoch(trainer.train_step, trainer.batches, recipe, TrainState(history))
        assert isinstance(done, dict)
        assert done["lr"] == rates[-1]
        history += (done,)
    steps, warmup = trainer.batches.per_epoch * recipe.epochs, 4
    assert len(rates) == steps == 18
    rising = [0.05 * (step + 1) / warmup for step in range(warmup)]
    falling = [0.025 * (1 + math.cos(math.pi * step / (steps - warmup))) for step in range(steps - warmup)]
    assert rates == pytest.approx([*rising, *falling])


def test_interrupted_epoch_resumes_exactly(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums and random states, as used by dropout, are restored; durations add up."""
    recipe = replace(RECIPE, batch_size=8, loss={"ce": 0.5, "kd": 2.0})
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("kdedge.training.epoch.time.monotonic", lambda: float(next(clock)))

    def train(stops: tuple[int, ...]) -> tuple[dict[str, Any], list[float], list[tuple[int, ...]], list[TrainState]]:
        trainer, drawn, heard = tiny_trainer(scenes, recipe, teacher=a_teacher()), [], []
        learn = trainer.train_step.learn

        def spy(*arguments: Any) -> Tensor:
            drawn.append(float(torch.rand(())))
            return learn(*arguments)

        monkeypatch.setattr(trainer.train_step, "learn", spy)
        at, broken = TrainState((), seconds=3.0), []
        for stop in (*stops, 99):
            torch.manual_seed(1234 + stop)  # a state other than the saved one
            done = train_epoch(
                trainer.train_step,
                trainer.batches,
                recipe,
                at,
                lambda epoch, step, steps, sums: heard.append((epoch, step, steps)),
                lambda stop=stop: len(drawn) >= stop,
            )
            if isinstance(done, dict):
                return done, drawn, heard, broken
            broken.append(done)
            at = done
        raise AssertionError("the epoch did not end")

    whole, parts = train(()), train((2, 3))
    assert whole[0]["loss_ce"] == pytest.approx(parts[0]["loss_ce"], rel=1e-6)
    assert whole[0] == pytest.approx(parts[0], rel=1e-6) and whole[1] == parts[1] and whole[2] == parts[2]
    assert whole[0]["loss"] == pytest.approx(0.5 * whole[0]["loss_ce"] + 2 * whole[0]["loss_kd"])
    assert whole[2] == [(0, step, 6) for step in range(1, 7)]
    first, second = parts[3]
    assert (first.step, first.seconds, second.step, second.seconds) == (2, 13.0, 3, 23.0)
    assert first.history == ()


def test_epoch_losses_are_means_over_steps(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPE, loss={"ce": 0.5, "kd": 2.0})
    trainer, terms, heard = tiny_trainer(scenes, recipe, teacher=a_teacher()), [], []
    learn = trainer.train_step.learn

    def spy(*given: Any) -> Tensor:
        terms.append(learn(*given))
        return terms[-1].clone()

    monkeypatch.setattr(trainer.train_step, "learn", spy)
    done = train_epoch(
        trainer.train_step, trainer.batches, recipe, TrainState(()), lambda *given: heard.append(given[3].tolist())
    )
    assert isinstance(done, dict) and len(terms) == 3
    every = torch.stack(terms)
    assert [done["loss_ce"], done["loss_kd"]] == pytest.approx(every.mean(dim=0).tolist(), rel=1e-6)
    assert torch.tensor(heard) == pytest.approx(every.cumsum(dim=0).numpy(), rel=1e-6)


class Apart(ProcessGroup):
    """Process in a group of identical processes, which needs no communication."""

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Keep the gradients, as the mean of equal ones."""
        assert all(parameter.grad is not None for parameter in parameters)

    def mean(self, value: Tensor) -> None:
        """Keep the tensor, as the mean of equal ones."""
        assert value.isfinite().all()

    def stack(self, value: Tensor) -> Tensor:
        """Stack equal tensors."""
        return torch.stack([value] * self.size)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Return the flag, as all are equal."""
        return flag


@pytest.mark.parametrize(("size", "stopped"), [(1, 3), (2, 16)])
def test_processes_agree_on_stopping_every_16_steps(scenes: Path, size: int, stopped: int) -> None:
    recipe = replace(RECIPE, batch_size=2)
    trainer, steps = tiny_trainer(scenes, recipe), []
    trainer.train_step.group = Apart(0, size)
    at = train_epoch(
        trainer.train_step,
        trainer.batches,
        recipe,
        TrainState(()),
        lambda epoch, step, *_: steps.append(step),
        lambda: len(steps) >= 3,
    )
    assert isinstance(at, TrainState) and at.step == stopped


def test_complete_epoch_is_not_interrupted(scenes: Path) -> None:
    trainer, steps = tiny_trainer(scenes, RECIPE), []
    done = train_epoch(
        trainer.train_step,
        trainer.batches,
        RECIPE,
        TrainState(()),
        lambda *given: steps.append(given[1]),
        lambda: len(steps) >= 3,
    )
    assert isinstance(done, dict) and steps == [1, 2, 3]


@pytest.mark.parametrize(("rank", "epoch"), [(0, 0), (1, 0), (0, 1), (2, 3)])
def test_random_numbers_differ_between_processes_and_epochs(
    scenes: Path, monkeypatch: pytest.MonkeyPatch, rank: int, epoch: int
) -> None:
    recipe = replace(RECIPE, seed=7)
    trainer, drawn = tiny_trainer(scenes, recipe), []
    trainer.train_step.group = Apart(rank, 3)
    learn = trainer.train_step.learn

    def spy(*given: Any) -> Tensor:
        drawn.append(float(torch.rand(())))
        return learn(*given)

    monkeypatch.setattr(trainer.train_step, "learn", spy)
    train_epoch(trainer.train_step, trainer.batches, recipe, TrainState(({},) * epoch))
    torch.manual_seed(seed_of(7, 3 * epoch + rank, 1))
    assert drawn[0] == float(torch.rand(()))


def test_random_numbers_differ_between_epochs(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, drawn = tiny_trainer(scenes, RECIPE), []
    learn = trainer.train_step.learn
    monkeypatch.setattr(
        trainer.train_step, "learn", lambda *given: (drawn.append(float(torch.rand(()))), learn(*given))[1]
    )
    for history in ((), ({},), ({}, {})):
        train_epoch(trainer.train_step, trainer.batches, RECIPE, TrainState(history))
    assert len(set(drawn)) == len(drawn)
    again = tiny_trainer(scenes, RECIPE)
    torch.manual_seed(99)
    learned = again.train_step.learn
    repeated: list[float] = []
    monkeypatch.setattr(
        again.train_step, "learn", lambda *given: (repeated.append(float(torch.rand(()))), learned(*given))[1]
    )
    train_epoch(again.train_step, again.batches, RECIPE, TrainState(({},)))
    assert repeated == drawn[len(repeated) : 2 * len(repeated)]


@pytest.mark.parametrize("stopped", [False, True])
def test_non_finite_loss_suggests_a_smaller_rate(scenes: Path, stopped: bool) -> None:
    trainer = tiny_trainer(scenes, RECIPE)
    with torch.no_grad():
        next(iter(trainer.train_step.student.model.parameters())).fill_(torch.nan)
    with pytest.raises(KdedgeError) as caught:
        train_epoch(trainer.train_step, trainer.batches, RECIPE, TrainState(({},)), must_stop=lambda: stopped)
    message = str(caught.value)
    assert "epoch 2 (term ce)" in message and "epoch 1 is kept" in message
    assert "below 0.05," in message and "--lr 0.0125" in message


def test_non_finite_weights_after_the_last_step_are_an_error(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = replace(RECIPE, batch_size=48)
    lone = tiny_trainer(scenes, single)
    monkeypatch.setattr(lone.train_step, "learn", spoil_of(lone.train_step))
    with pytest.raises(KdedgeError):
        train_epoch(lone.train_step, lone.batches, single, TrainState(()))


def spoil_of(train_step: Any) -> Any:
    """Return a step after which one weight is infinite although the loss is finite."""
    learn = train_step.learn

    def spoil(*given: Any) -> Tensor:
        terms = learn(*given)
        with torch.no_grad():
            list(train_step.student.model.parameters())[-1].view(-1)[0] = torch.inf
        assert terms.isfinite().all()
        return terms

    return spoil


@pytest.mark.parametrize("mixed", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_teacher_receives_the_mixed_images(scenes: Path, mixed: dict[str, float]) -> None:
    recipe = replace(RECIPE, loss={"kd": 1.0}, augmentation=Augmentation(shift=0.0, flip=False, **mixed))
    trainer = tiny_trainer(scenes, recipe, teacher=a_teacher())
    teacher = a_teacher().eval()
    for batch in trainer.batches.of(0):
        assert (batch.targets.max(dim=1).values < 1).any(), "images were mixed"
        assert batch.teacher_output is not None
        values = batch.samples.permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            expected = teacher((values - 0.5) / 0.25)
        torch.testing.assert_close(batch.teacher_output.logits, expected, rtol=1e-4, atol=1e-4)


def test_maps_are_compared_for_the_teachers_prediction(scenes: Path) -> None:
    trainer = tiny_trainer(scenes, replace(RECIPE, loss={"kd": 1.0}), teacher=a_teacher())
    student, images = trainer.train_step.student.eval(), trainer.evaluator.val.pixels
    predictions = trainer.evaluator.teacher_outputs
    assert predictions is not None and predictions.maps is not None
    every = torch.arange(len(CLASSES)).expand(len(images), -1)
    with torch.no_grad():
        maps = student(images, every).maps
        own = student(images, 0).logits.argmax(dim=1)
    assert maps is not None
    classes = predictions.logits.argmax(dim=1)
    assert (classes != own).any(), "the test needs images on which student and teacher differ"

    def mean_pearson(classes: Tensor) -> float:
        chosen = maps[torch.arange(len(images)), classes]
        pairs = zip(chosen.flatten(1).numpy(), predictions.maps.flatten(1).numpy(), strict=True)
        return float(np.mean([np.corrcoef(ours, theirs)[0, 1] for ours, theirs in pairs]))

    found = trainer.evaluator.validate()["val_map_pearson"]
    assert found == pytest.approx(mean_pearson(classes), abs=1e-5)
    assert abs(found - mean_pearson(own)) > 1e-3


def test_test_metrics_belong_to_their_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_scenes(tmp_path / "data", train=8, val=4)
    shutil.copytree(data / "val", data / "test")
    losses = iter((0.1, 0.2, 0.3))
    monkeypatch.setattr(evaluator.Evaluator, "validate", lambda _: {"val_loss": next(losses)})
    request = TrainConfig(str(data), "small:resnet8", epochs=3, batch_size=8, lr=0.05)
    record = start_run(request, tmp_path / "run", Listener(), "cpu")
    assert record.result is not None and record.result["best"]["epoch"] == 1

    index = load(index_dataset(str(data)), record.input)
    pixels = torch.from_numpy(np.ascontiguousarray(index.val.samples)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (record.input.mean, record.input.std))
    expected = {}
    for name, file in (("best", BEST), ("last", LAST)):
        model = build_model(record.model, SIDE)
        state = load_file(tmp_path / "run" / file)
        model.load_state_dict({key[6:]: value for key, value in state.items() if key.startswith("model.")})
        with torch.no_grad():
            logits = model.eval()((pixels - mean) / std)
        expected[name] = float(F.cross_entropy(logits, torch.as_tensor(index.val.targets)))
    assert expected["best"] != pytest.approx(expected["last"], rel=1e-2)
    found = {name: figures["test_loss"] for name, figures in record.result["test"].items()}
    assert found == pytest.approx(expected, rel=1e-3)
