"""Quantization-aware training: a student learns to say with the errors of int8 what it said without them."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdedge.config.training_recipe import Recipe
from kdedge.data import Collection as Pictures
from kdedge.data import Sample, scan, subset
from kdedge.models.run_folder import read_run
from kdedge.models.trained_model import TrainedModel, load_trained
from kdedge.training.builder import assemble
from kdedge.training.compute_device import choose_compute
from kdedge.training.distributed import join_group
from kdedge.training.epoch import Position, train_epoch
from kdedge.training.fake_quantization import fake_quantized
from kdedge.training.image_store import training_images
from kdedge.training.instrumented_model import Watched
from kdedge.training.measurements import steady_rate
from kdedge.training.teachers.teacher import NetworkTeacher
from kdedge_export.quantize.qat_scales import Rounded
from kdedge_runtime.errors import DataError

__all__ = ["fine_tune"]

_RATE = 0.05
"""Of the run's learning rate, to begin with: the student is trained, and what it says must not change."""
_LOSS = {"kd": 1.0, "mapall": 20.0}
"""The teacher is the float student itself, in answers and maps. With the run's own teacher the student would go on
learning, into another one than the float file holds, and what is validated is whether int8 keeps that."""
_SHARE, _LEAST_EPOCHS = 0.1, 3
"""Of the run's epochs, and at least."""

Progress = Callable[[str, int, int], None]


def fine_tune(
    run: Path, file: Rounded, *, aside: Collection[Sample] = (), progress: Progress
) -> tuple[TrainedModel, dict[str, Any]]:
    """Train a run's student on, on the run's pictures as its recipe augments them, but rounded to int8.

    Args:
        run: the run folder.
        file: what the int8 file rounds that the student shall make up for.
        aside: pictures to leave out, since they will judge what comes of it.
        progress: told after every step.

    Returns:
        The student, and what to note of its further training.

    Raises:
        DataError: the pictures have changed.
        KdedgeError: the loss is no longer a number.
    """
    record, trained = read_run(run), load_trained(str(run))
    collection = scan(record.data["source"])
    if record.data["images_per_class"] is not None:
        collection = subset(collection, record.data["images_per_class"])
    if collection.fingerprint != record.data["fingerprint"]:
        raise DataError(f"The pictures in {collection.source} have changed since {run} was trained on them.")
    collection = _without(collection, set(aside))
    compute = replace(choose_compute("auto"), bf16=False)  # whose own errors are as large as int8's
    group = join_group(compute.device)
    images, val, _ = training_images(
        collection, trained.input, compute, group, lambda done, total: progress("reading pictures", done, total)
    )
    before = Recipe.from_record(record.recipe)
    epochs = max(_LEAST_EPOCHS, round(_SHARE * before.epochs))
    teacher = Watched(load_trained(str(run)).model, trained.input, compute)
    recipe = replace(
        before,
        epochs=epochs,
        learning_rate=_RATE * before.learning_rate,
        loss=_LOSS if teacher.unexplained is None else {"kd": 1.0},
        settings={},
        measured=(),
        layers={},
        warmup_fraction=0.0,
        cached_views=0,
    )
    student = Watched(trained.model.requires_grad_(True), trained.input, compute)
    torch.manual_seed(recipe.seed)
    picture = torch.from_numpy(file.picture).to(compute.device)
    classes = 0 if teacher.unexplained else 1
    with fake_quantized(student, student.model, file, lambda: student(picture, classes)) as unrounded:
        trainer = assemble(
            student,
            NetworkTeacher(teacher, compute),
            images,
            val,
            recipe,
            group,
            compute,
            classes=len(collection.labels),
        )
        history: tuple[dict[str, Any], ...] = ()

        def on_step(epoch: int, step: int, steps: int, _sums: Tensor) -> None:
            progress("training with int8's errors", epoch * steps + step, epochs * steps)

        try:
            on_step(0, 0, trainer.batches.per_epoch, torch.empty(0))
            recipe = replace(recipe, learning_rate=steady_rate(trainer, recipe.loss, recipe.learning_rate))
            for _ in range(epochs):
                losses = train_epoch(trainer.learner, trainer.batches, recipe, Position(history), on_step)
                assert isinstance(losses, dict)
                history = (*history, losses)
        finally:
            images.close()
            val.close()
    # A model as it is loaded, without the hooks that training hangs on it.
    tuned = load_trained(str(run))
    tuned.model.load_state_dict({name: value.cpu() for name, value in student.model.state_dict().items()})
    note = {"epochs": epochs, "learning_rate": recipe.learning_rate, "loss": dict(recipe.loss)}
    return tuned, note | {"rounded": len(file.steps) - unrounded, "not_rounded": unrounded}


def _without(collection: Pictures, aside: set[Sample]) -> Pictures:
    """Leave pictures out of the training side, but those of classes of which nothing would be left."""
    pairs = list(collection.train.pairs())
    known = {target for sample, target in pairs if sample not in aside}
    chosen = (index for index, (sample, target) in enumerate(pairs) if sample not in aside or target not in known)
    return replace(collection, train=collection.train.take(chosen))
