"""Compiled and captured steps compute the same as eager ones."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_toys import CLASSES, SIDE, Listener, tiny_config, tiny_trainer

from kdedge.config.train_config import TrainConfig
from kdedge.losses import LOSS_TERMS
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.training.compute_device import choose_device
from kdedge.training.distributed import ProcessGroup
from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.layer_pairs import stages
from kdedge.training.objective import Objective
from kdedge.training.pooled_features import POOLED
from kdedge.training.step import TrainStep
from kdedge.training.teachers.targets import OnlineTeacher
from kdedge.training.teachers.teacher import NetworkTeacher
from kdedge.training.training_run import start_run
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.image import ImageInput

LOSS = {"ce": 0.1, "kd": 0.9, "ls": 1.0, "dkd": 1.0, "dist": 1.0, "cat": 1.0, "e2": 1.0, "map": 1.0, "mapall": 20.0}
RECIPE = tiny_config(epochs=1, batch_size=8, learning_rate=0.01, loss=LOSS)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def watched(name: str, device: str = "cpu") -> InstrumentedModel:
    torch.manual_seed(0)
    spec = ImageInput(SIDE, SIDE, (0.5,) * 3, (0.25,) * 3)
    return InstrumentedModel(build_model(ModelSpec(name, len(CLASSES)), SIDE), spec, choose_device(device))


def batch(device: str = "cpu") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (8, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    targets = torch.eye(len(CLASSES))[torch.randint(len(CLASSES), (8,), generator=generator)]
    return images.to(device), targets.to(device)


@pytest.mark.parametrize("pooled", [False, True])
def test_step_has_no_graph_breaks(scenes: Path, pooled: bool) -> None:
    """All terms in bfloat16, as on a GPU. `fullgraph` turns graph breaks into errors; gradients are compared too.

    Terms of pooled and of spatial features cannot be combined.
    """
    names = [name for name, term in LOSS_TERMS.items() if term.pooled == pooled or not term.features]
    recipe = replace(RECIPE, loss=dict.fromkeys(names, 1.0))
    trainer = tiny_trainer(scenes, recipe, teacher=watched("small:resnet14").model, bf16=True)
    train_step, batch = trainer.train_step, next(trainer.batches.of(0))
    teacher = NetworkTeacher(watched("small:resnet14"), replace(choose_device("cpu"), bf16=True))
    teacher.watched.watch([POOLED] if pooled else stages(teacher.watched))
    with torch.no_grad():
        taught = torch.compile(teacher.predict, fullgraph=True, backend="aot_eager")(batch.samples, 3)
    assert len(taught.features) == (1 if pooled else 3)
    assert all(torch.equal(*pair) for pair in zip(taught.features, teacher(batch.samples, 3).features, strict=True))
    assert torch.equal(taught.maps, teacher(batch.samples, 3).maps)
    train_step.student.train()
    before = copy.deepcopy(train_step.student.state_dict())
    results = []
    for terms in (train_step.terms, torch.compile(train_step.terms, fullgraph=True, backend="aot_eager")):
        train_step.student.load_state_dict(before)
        values = terms(batch.samples, batch.targets, taught)
        values.sum().backward()
        results.append([values.detach(), *(parameter.grad for parameter in train_step.parameters)])
        train_step.optimizer.zero_grad()
    for plain, compiled in zip(*results, strict=True):
        assert plain is not None and compiled is not None
        assert torch.allclose(plain, compiled, rtol=1e-4, atol=1e-5)


def test_compile_on_the_cpu_is_rejected(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--compile .* CPU\. Remove --compile"):
        start_run(TrainConfig(str(scenes), "small:resnet8"), tmp_path / "run", Listener(), "cpu", compiled=True)


@pytest.mark.gpu
@needs_cuda
def test_captured_step_equals_eager_step() -> None:
    images, targets = batch("cuda")
    weights = torch.tensor(list(LOSS.values()), device="cuda")
    finished = []
    for compiled in (False, True):
        compute = replace(choose_device("cuda", compiled=compiled), bf16=False)
        teacher = NetworkTeacher(watched("small:resnet14", "cuda"), compute)
        teacher_targets = OnlineTeacher(teacher, 3, compiled=compiled)
        train_step = TrainStep(
            watched("small:resnet8", "cuda"),
            Objective({name: {} for name in LOSS}),
            compute,
            ProcessGroup(),
            recipe=RECIPE.recipe,
        )
        train_step.student.train()
        for step in range(8):  # more than before the capture
            shifted = images.roll(step, dims=2)
            prediction = teacher_targets.prediction(torch.arange(8, device="cuda"), shifted)
            terms = train_step.learn(shifted, targets, prediction, weights, rate=0.01 / (1 + step))
        finished.append((terms.clone(), copy.deepcopy(train_step.student.state_dict())))
    (plain_terms, plain), (captured_terms, captured) = finished
    assert torch.allclose(plain_terms, captured_terms, rtol=1e-3)
    for name, value in plain.items():
        assert torch.allclose(value.float(), captured[name].float(), rtol=1e-2, atol=1e-3), name
