"""A run's plan in words."""

from typing import Any

from kdedge.data import Dataset
from kdedge.distill.engine import Trainer
from kdedge.distill.losses import SOFTENED_TERMS
from kdedge.distill.recipe import Recipe
from kdedge.distill.request import Request
from kdedge.models import ModelSpec
from kdedge.models.trained import TrainedModel
from kdedge_runtime.metadata import ImageInput

__all__ = ["describe"]


def describe(
    request: Request,
    trainer: Trainer,
    teacher: TrainedModel | None,
    spec: ModelSpec,
    spec_input: ImageInput,
    recipe: Recipe,
    data: Dataset,
) -> list[tuple[str, str]]:
    """What was decided for a run, as (name, value and reason), for the user to read before the first step."""

    def said(option: Any, why: str) -> str:
        return "as asked" if option is not None else why

    parameters = sum(parameter.numel() for parameter in trainer.student.model.parameters())
    size, cells = spec_input.height, trainer.student.map_size
    lines = [
        ("images", f"{len(data.train):,} to train on, {len(data.val):,} to validate, {len(data.labels)} classes"),
        ("model", f"{spec.name}, {parameters / 1e6:.2f} M parameters"),
    ]
    if teacher is not None and trainer.teacher_top1 is not None:
        ratio = teacher.parameters / parameters
        size_text = f"{teacher.parameters / 1e6:.2f} M parameters, {ratio:.1f} times as many"
        lines.append(("teacher", f"{teacher.spec.name}, {size_text}, {100 * trainer.teacher_top1:.1f} % right here"))
    why_size = "as the teacher's" if teacher is not None else "from the pictures and the device"
    lines.append(("input", f"{size} × {size} px ({said(request.size, why_size)})"))
    if cells is not None:
        stem = f"early strides removed, {spec.stride_factor} times finer" if spec.stride_factor > 1 else "stem as it is"
        lines.append(("map", f"{cells[0]} × {cells[1]} cells ({said(request.output_stride, stem)})"))
    loss = " + ".join(f"{weight:g}·{name}" for name, weight in recipe.loss.items())
    return [
        *lines,
        (
            "loss",
            f"{loss}" + (f", temperature {recipe.temperature:g}" if SOFTENED_TERMS.intersection(recipe.loss) else ""),
        ),
        (
            "schedule",
            f"{recipe.epochs} epochs ({said(request.epochs, 'from the data and the device')}), "
            f"batches of {recipe.batch_size}, learning rate {recipe.learning_rate:g}",
        ),
        ("device", f"{trainer.compute.name}, {'bfloat16' if trainer.compute.bf16 else 'float32'}"),
    ]
