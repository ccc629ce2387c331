"""Training options and the plan derived from them."""

import dataclasses
import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kdedge.config.defaults import choose_batch_size, choose_recipe
from kdedge.config.loss_spec import LARGEST, LossSpec, parse_loss
from kdedge.config.recipe_file import RecipeSettings, load_recipe, recipe_text
from kdedge_runtime.errors import UsageError

__all__ = ["TrainingPlan", "TrainConfig", "plan_training"]

DEFAULT_STEPS = 4000
"""Training length of a recipe that sets none, in steps."""


@dataclass(frozen=True)
class TrainConfig:
    """Training options; None means chosen from the data and the device.

    Raises:
        UsageError: options contradict each other, or a number is out of range.
    """

    data: str
    model: str
    """Model to train: the teacher in `kdedge train`, the student in `kdedge distill`."""
    teacher: tuple[str, ...] = ()
    """Run folders, `.onnx` files, or model names with weights; several form an ensemble."""
    teacher_weights: tuple[str, ...] = ()
    """Weights files of the teachers given by model name, in their order."""
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
            if value is not None and not 0 < value < LARGEST:  # also catches NaN
                raise UsageError(
                    f"--{option} is {value:g}. Expected a number above zero and below {LARGEST:g}, such as {usual:g}."
                )
        if self.weights is not None and self.init is not None:
            raise UsageError(
                f"The student cannot be initialized from both {self.weights} and its teacher. Remove --weights "
                "or --init."
            )

    @classmethod
    def from_record(cls, given: dict[str, Any]) -> "TrainConfig":
        """Restore a request from the JSON values of `given`."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        values.pop("recipe_sha256", None)
        return cls(**values)

    @property
    def kind(self) -> Literal["train", "distill"]:
        """Name of the command."""
        return "distill" if self.teacher else "train"

    @property
    def given(self) -> dict[str, Any]:
        """Explicit options as JSON values, with a hash of the recipe's text."""
        values: dict[str, Any] = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }
        if self.recipe is not None:
            values["recipe_sha256"] = hashlib.sha256(recipe_text(self.recipe).encode()).hexdigest()
        return {name: value for name, value in values.items() if value not in (None, [])}


@dataclass(frozen=True)
class TrainingPlan:
    """Settings resolved before images are read; training length and measured weights may follow."""

    recipe: str
    """Name or file of the recipe."""
    settings: RecipeSettings
    """Settings with the user's options applied."""
    loss: LossSpec
    batch_size: int
    learning_rate: float

    @property
    def steps(self) -> int:
        """Training length in steps, if no epochs are set."""
        return self.settings.steps or DEFAULT_STEPS


def plan_training(request: TrainConfig, images: int, classes: int) -> TrainingPlan:
    """Resolve the settings of a run for the given number of training images and classes.

    Raises:
        UsageError: the recipe or the loss cannot be read.
    """
    name = request.recipe or ("labels" if request.kind == "train" else choose_recipe(images / classes))
    settings = load_recipe(name)
    batch_size = min(request.batch_size or settings.batch_size or choose_batch_size(images), images)
    # Pretrained weights are fine-tuned gently; random ones use the literature's rate, scaled with the batch size.
    rate = (0.01 if request.weights else 0.1) * batch_size / 128
    augmentation = settings.augmentation
    if request.flip is not None:
        augmentation = dataclasses.replace(augmentation, flip=request.flip)
    return TrainingPlan(
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
