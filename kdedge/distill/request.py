"""What the user asked for, and the recipe that follows from it."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from kdedge.distill.plan import choose_batch_size
from kdedge.distill.recipe import DISTILL_LOSS, TRAIN_LOSS, Recipe, parse_loss

__all__ = ["Request", "recipe_for"]


@dataclass(frozen=True)
class Request:
    """What the user asked for; None leaves the choice to the data and the device."""

    data: str
    model: str
    """The network to train: the teacher in `kdedge train`, the student in `kdedge distill`."""
    teacher: str | None = None
    teacher_weights: str | None = None
    weights: str | None = None
    size: int | None = None
    output_stride: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    loss: str | None = None
    temperature: float | None = None
    flip: bool | None = None
    images_per_class: int | None = None
    seed: int | None = None

    @property
    def kind(self) -> Literal["train", "distill"]:
        """The verb."""
        return "train" if self.teacher is None else "distill"

    @property
    def given(self) -> dict[str, Any]:
        """The options that are not left open."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def recipe_for(request: Request, images: int, epochs: int) -> Recipe:
    """The settings of a run on so many training images; what the request leaves open gets its default.

    Raises:
        UsageError: the loss cannot be read.
    """
    chosen = Recipe(
        epochs=epochs,
        batch_size=min(request.batch_size or choose_batch_size(images), images),
        learning_rate=0.0,
        loss=parse_loss(request.loss)
        if request.loss is not None
        else dict(DISTILL_LOSS if request.teacher else TRAIN_LOSS),
        seed=request.seed or 0,
    )
    # Trained weights are adapted gently; random ones take the literature's rate, scaled with the batch.
    rate = request.lr or (0.01 if request.weights else 0.1) * chosen.batch_size / 128
    return replace(
        chosen,
        learning_rate=rate,
        temperature=chosen.temperature if request.temperature is None else request.temperature,
        flip=chosen.flip if request.flip is None else request.flip,
    )
