"""Quantization-aware training: fine-tune a student with simulated int8 to match its own fp32 outputs."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kdedge.config.training_recipe import TrainingRecipe
from kdedge.data import DatasetIndex as Images
from kdedge.data import Sample, index_dataset, subset
from kdedge.models.artifacts import Artifacts
from kdedge.models.trained_model import TrainedModel, load_trained
from kdedge.training.builder import build_trainer
from kdedge.training.compute_device import choose_device
from kdedge.training.distributed import join_process_group
from kdedge.training.epoch import TrainState, train_epoch
from kdedge.training.fake_quantization import fake_quantized
from kdedge.training.image_store import training_images
from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.measurements import find_learning_rate
from kdedge.training.teachers.teacher import NetworkTeacher
from kdedge_export.quantization.qat_scales import QuantizedTensors
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["fine_tune"]

_RATE = 0.05
"""Initial learning rate as a fraction of the run's; low, because the student is already trained."""
_LOSS = {"kd": 1.0, "mapall": 20.0}
"""Loss weights. The teacher is the fp32 student itself, for predictions and maps.

With the run's own teacher the student would continue to learn and diverge from the fp32 file. Validation measures
whether int8 preserves the fp32 file.
"""
_SHARE, _LEAST_EPOCHS = 0.1, 3
"""Number of epochs as a fraction of the run's, and its minimum."""


def fine_tune(
    artifacts: Artifacts, file: QuantizedTensors, *, aside: Collection[Sample] = (), progress: ProgressCallback
) -> tuple[TrainedModel, dict[str, Any]]:
    """Fine-tune a run's student with simulated int8, on the run's images with its augmentation.

    Args:
        artifacts: run of the student.
        file: quantization points of the int8 file that the student should compensate for.
        aside: images to exclude, because they are used to evaluate the result.
        progress: called after every step.

    Returns:
        The student, and a note on its fine-tuning for the metadata.

    Raises:
        DataError: the images have changed.
        KdedgeError: the loss is not finite.
    """
    record, trained = artifacts.record, load_trained(artifacts)
    if record is None:
        raise UsageError(f"--qat fine-tunes the student of a run, but {artifacts.source} is not a run folder.")
    collection = index_dataset(record.data["source"])
    if record.data["images_per_class"] is not None:
        collection = subset(collection, record.data["images_per_class"])
    if collection.fingerprint != record.data["fingerprint"]:
        raise DataError(f"The images in {collection.source} have changed since {artifacts.source} was trained on them.")
    collection = _without(collection, set(aside))
    compute = replace(choose_device("auto"), bf16=False)  # bf16 errors are as large as those of int8
    group = join_process_group(compute.device)
    images, val, _ = training_images(collection, trained.input, compute, group, progress)
    before = TrainingRecipe.from_record(record.recipe)
    epochs = max(_LEAST_EPOCHS, round(_SHARE * before.epochs))
    teacher = InstrumentedModel(load_trained(artifacts).model, trained.input, compute)
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
    student = InstrumentedModel(trained.model.requires_grad_(True), trained.input, compute)
    torch.manual_seed(recipe.seed)
    image = torch.from_numpy(file.image).to(compute.device)
    classes = 0 if teacher.unexplained else 1
    with fake_quantized(student, student.model, file, lambda: student(image, classes)) as unrounded:
        trainer = build_trainer(
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
            progress("fine-tuning with simulated int8", epoch * steps + step, epochs * steps)

        try:
            on_step(0, 0, trainer.batches.per_epoch, torch.empty(0))
            recipe = replace(recipe, learning_rate=find_learning_rate(trainer, recipe.loss, recipe.learning_rate))
            for _ in range(epochs):
                losses = train_epoch(trainer.train_step, trainer.batches, recipe, TrainState(history), on_step)
                assert isinstance(losses, dict)
                history = (*history, losses)
        finally:
            images.close()
            val.close()
    # Reload the model, without the hooks added for training.
    tuned = load_trained(artifacts)
    tuned.model.load_state_dict({name: value.cpu() for name, value in student.model.state_dict().items()})
    note = {"epochs": epochs, "learning_rate": recipe.learning_rate, "loss": dict(recipe.loss)}
    return tuned, note | {"rounded": len(file.steps) - unrounded, "not_rounded": unrounded}


def _without(collection: Images, aside: set[Sample]) -> Images:
    """Exclude images from the training split, except for classes that would become empty."""
    pairs = list(collection.train.pairs())
    known = {target for sample, target in pairs if sample not in aside}
    chosen = (index for index, (sample, target) in enumerate(pairs) if sample not in aside or target not in known)
    return replace(collection, train=collection.train.take(chosen))
