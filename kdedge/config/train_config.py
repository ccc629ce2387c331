"""What the user asked for, and the recipe that follows from it."""

import dataclasses
import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kdedge.config.defaults import choose_batch_size, choose_recipe
from kdedge.config.loss_spec import LARGEST, Loss, parse_loss
from kdedge.config.recipe_file import Settings, load_settings, recipe_text
from kdedge_runtime.errors import UsageError

__all__ = ["Plan", "Request", "plan_for"]

DEFAULT_STEPS = 4000
"""Of a recipe that says nothing."""


@dataclass(frozen=True)
class Request:
    """What the user asked for; None leaves the choice to the data and the device.

    Raises:
        UsageError: options contradict each other, or a number is none.
    """

    data: str
    model: str
    """The network to train: the teacher in `kdedge train`, the student in `kdedge distill`."""
    teacher: tuple[str, ...] = ()
    """Run folders, `.onnx` files, or networks with weights; several teach together."""
    teacher_weights: tuple[str, ...] = ()
    """Of the teachers that are networks, in their order."""
    weights: str | None = None
    init: Literal["teacher"] | None = None
    recipe: str | None = None
    size: int | None = None
    output_stride: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    loss: str | None = None
    temperature: float | None = None
    flip: bool | None = None
    images_per_class: int | None = None
    cache_teacher: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for option, value, usual in (("lr", self.lr, 0.05), ("temperature", self.temperature, 4)):
            if value is not None and not 0 < value < LARGEST:  # catches NaN too
                raise UsageError(
                    f"--{option} is {value:g}. Expected a number above zero and below {LARGEST:g}, such as {usual:g}."
                )
        if self.weights is not None and self.init is not None:
            raise UsageError(f"The student cannot start both from {self.weights} and from its teacher. Leave one out.")

    @classmethod
    def from_record(cls, given: dict[str, Any]) -> "Request":
        """The request that `given` turned into JSON values."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        values.pop("recipe_sha256", None)
        return cls(**values)

    @property
    def kind(self) -> Literal["train", "distill"]:
        """The verb."""
        return "distill" if self.teacher else "train"

    @property
    def given(self) -> dict[str, Any]:
        """The options that are not left open, as JSON values; of a recipe what it says, as a hash."""
        values: dict[str, Any] = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }
        if self.recipe is not None:
            values["recipe_sha256"] = hashlib.sha256(recipe_text(self.recipe).encode()).hexdigest()
        return {name: value for name, value in values.items() if value not in (None, [])}


@dataclass(frozen=True)
class Plan:
    """What is settled before the pictures are read; the length of training and some weights may follow."""

    recipe: str
    """Name or file of the settings."""
    settings: Settings
    """With the user's own options in place."""
    loss: Loss
    batch_size: int
    learning_rate: float

    @property
    def steps(self) -> int:
        """How long to train, where no epochs are asked for."""
        return self.settings.steps or DEFAULT_STEPS


def plan_for(request: Request, images: int, classes: int) -> Plan:
    """The settings of a run on so many training pictures of so many classes.

    Raises:
        UsageError: the recipe or the loss cannot be read.
    """
    name = request.recipe or ("labels" if request.kind == "train" else choose_recipe(images / classes))
    settings = load_settings(name)
    batch_size = min(request.batch_size or settings.batch_size or choose_batch_size(images), images)
    # Trained weights are adapted gently; random ones take the literature's rate, scaled with the batch.
    rate = (0.01 if request.weights else 0.1) * batch_size / 128
    augmentation = settings.augmentation
    if request.flip is not None:
        augmentation = dataclasses.replace(augmentation, flip=request.flip)
    return Plan(
        recipe=name,
        settings=dataclasses.replace(
            settings,
            augmentation=augmentation,
            temperature=settings.temperature if request.temperature is None else request.temperature,
            epochs=settings.epochs if request.epochs is None else request.epochs,
        ),
        loss=settings.loss if request.loss is None else parse_loss(request.loss),
        batch_size=batch_size,
        learning_rate=request.lr or settings.learning_rate or rate,
    )
