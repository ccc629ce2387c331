"""Metrics during training equal those of the validation report."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_toys import CLASSES, SIDE, tiny_config, tiny_trainer

from kdedge.losses.loss_inputs import ModelOutput
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.training.distributed import ProcessGroup
from kdedge.training.evaluator import EvalOutputs, agreement_metrics, evaluate
from kdedge.training.sample_store import DeviceSamples
from kdedge_export.metrics.comparison import compare
from kdedge_export.metrics.torch_predictions import Predictions
from kdedge_export.tasks.classification import CLASSIFICATION

TARGETS = torch.arange(12) % 4


def outputs(seed: int, side: int) -> EvalOutputs:
    generator = torch.Generator().manual_seed(seed)
    return EvalOutputs(torch.randn(12, 4, generator=generator), torch.randn(12, side, side, generator=generator))


def as_report(outputs: EvalOutputs) -> Predictions:
    maps = None if outputs.maps is None else outputs.maps.numpy()
    return Predictions(outputs.logits.numpy(), maps, np.zeros(12, np.int64))


@pytest.mark.parametrize("side", [7, 14, 10])
def test_metrics_equal_the_report(side: int) -> None:
    student, teacher = outputs(0, 7), outputs(1, side)
    assert student.maps is not None and teacher.maps is not None
    student.maps[:3] = teacher.maps[:3].mean(dim=(1, 2), keepdim=True)  # different maps
    student.maps[3], teacher.maps[3] = 1000.1, 0.7  # constant maps in both
    found = agreement_metrics(student, TARGETS, teacher, "classify")
    expected = compare(as_report(teacher), as_report(student), TARGETS.numpy(), CLASSIFICATION)
    assert expected.maps is not None
    assert found["map_pearson"] == pytest.approx(expected.maps.pearson_mean, abs=1e-6)
    assert found["agreement"] == pytest.approx(expected.agreement)
    assert found["top1"] == pytest.approx(expected.accuracy_candidate)


def test_constant_maps_have_no_metric() -> None:
    student, teacher = outputs(0, 7), outputs(1, 7)
    flat = torch.ones(12, 7, 7)
    assert "map_pearson" not in agreement_metrics(
        EvalOutputs(student.logits, flat), TARGETS, EvalOutputs(teacher.logits, flat), "classify"
    )


def numbered(count: int) -> DeviceSamples:
    """Images of one pixel that encode their own index in two bytes."""
    pixels = np.zeros((count, 1, 1, 3), np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = np.arange(count) // 256, np.arange(count) % 256
    return DeviceSamples(pixels, np.zeros(count, np.int64), torch.device("cpu"))


def prediction_numbers(images: Tensor, wanted: int | Tensor) -> ModelOutput:
    """Return an image's index as logits, and the requested classes as maps."""
    number = images[:, 0, 0, 0].float() * 256 + images[:, 0, 0, 1]
    classes = torch.full((len(images), 3), 50 + wanted) if isinstance(wanted, int) else wanted
    return ModelOutput(torch.stack([number, -number], dim=1), classes, classes[:, :, None, None].float())


@pytest.mark.parametrize("count", [1, 256, 300, 513])
def test_each_image_is_evaluated_once_in_order(count: int) -> None:
    wanted = torch.arange(count)[:, None] * 7
    with torch.device("meta"):  # everything is on the device of the images
        found = evaluate(prediction_numbers, numbered(count), wanted, ProcessGroup())
    assert found.logits[:, 0].tolist() == list(range(count))
    assert found.maps is not None and found.maps.shape == (count, 1, 1)
    assert found.maps[:, 0, 0].tolist() == [7 * number for number in range(count)]


def test_first_map_is_used_for_a_number_of_classes() -> None:
    found = evaluate(prediction_numbers, numbered(4), 1, ProcessGroup())
    assert found.maps is not None and found.maps.flatten().tolist() == [51.0] * 4


def test_model_without_maps() -> None:
    found = evaluate(lambda images, wanted: ModelOutput(images[:, 0, 0].float()), numbered(4), 1, ProcessGroup())
    assert found.maps is None and found.logits.shape == (4, 3)


class Apart(ProcessGroup):
    """Process that returns its own rows instead of gathering."""

    def gather(self, rows: Tensor) -> Tensor:
        """Return its own rows."""
        return rows


@pytest.mark.parametrize(("rank", "seen"), [(0, [0, 1]), (1, [2, 3]), (2, [4, 4])])
def test_processes_share_images_evenly_with_padding(rank: int, seen: list[int]) -> None:
    wanted = torch.arange(5)[:, None]
    found = evaluate(prediction_numbers, numbered(5), wanted, Apart(rank, 3))
    assert found.logits[:, 0].tolist() == seen
    assert found.maps is not None and found.maps.flatten().tolist() == seen


def test_metrics_without_teacher() -> None:
    student = EvalOutputs(torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]]), None)
    found = agreement_metrics(student, torch.tensor([0, 1, 1]), None, "classify")
    losses = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1)), math.log(1 + math.exp(2))]
    assert found == pytest.approx({"top1": 2 / 3, "loss": sum(losses) / 3})


def test_missing_maps_have_no_map_metric() -> None:
    student, teacher = outputs(0, 7), outputs(1, 7)
    for one, other in ((student, EvalOutputs(teacher.logits, None)), (EvalOutputs(student.logits, None), teacher)):
        assert set(agreement_metrics(one, TARGETS, other, "classify")) == {"top1", "loss", "agreement"}


def test_test_metrics_are_of_the_given_images(scenes: Path) -> None:
    torch.manual_seed(5)
    teacher: nn.Module = build_model(ModelSpec("small:resnet14", len(CLASSES)), SIDE)
    recipe = tiny_config(epochs=1, batch_size=16, learning_rate=0.05, loss={"ce": 1.0, "kd": 1.0})
    evaluator = tiny_trainer(scenes, recipe, teacher=teacher).evaluator
    validated = evaluator.validate()
    assert set(validated) == {"val_top1", "val_loss", "val_agreement", "val_map_pearson"}
    predictions = evaluator.evaluate_teacher(evaluator.val)
    assert evaluator.test(evaluator.val, predictions) == {
        f"test_{name[4:]}": value for name, value in validated.items()
    }
    assert set(evaluator.test(evaluator.val, None)) == {"test_top1", "test_loss"}


def test_maps_are_compared_for_each_images_class(scenes: Path) -> None:
    """The teacher's top classes differ between images."""
    trainer = tiny_trainer(scenes, tiny_config(epochs=1, batch_size=16, learning_rate=0.05, loss={"ce": 1.0}))
    images, student = trainer.evaluator.val, trainer.train_step.student.eval()
    assert isinstance(images, DeviceSamples)
    classes = torch.arange(len(images)) % len(CLASSES)
    with torch.no_grad():
        every = student(images.pixels, torch.arange(len(CLASSES)).expand(len(images), -1)).maps
    assert every is not None
    ours = every[torch.arange(len(images)), classes].flatten(1).numpy()
    theirs = torch.rand(len(images), *every.shape[2:], generator=torch.Generator().manual_seed(0))
    found = trainer.evaluator.test(images, EvalOutputs(torch.eye(len(CLASSES))[classes], theirs))
    pairs = zip(ours, theirs.flatten(1).numpy(), strict=True)
    expected = float(np.mean([np.corrcoef(one, other)[0, 1] for one, other in pairs]))
    assert found["test_map_pearson"] == pytest.approx(expected, abs=1e-5)
