"""Requested training options."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kdedge.config.loss_spec import LARGEST
from kdedge.config.recipe_file import recipe_text
from kdedge.data.dataset_options import DatasetOptions
from kdedge_runtime.errors import UsageError

__all__ = ["EVERY_S", "TrainConfig"]

EVERY_S = 1.0
"""Default interval between unlabeled video frames in seconds."""


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
    classes: tuple[str, ...] = ()
    """Class names of a zero-shot teacher, in the order of the data's classes."""
    unlabeled: tuple[str, ...] = ()
    """Locations of unlabeled samples that join the training split."""
    every_s: float | None = None
    """Interval between unlabeled video frames in seconds; None takes `EVERY_S`."""
    prompts: tuple[str, ...] = ()
    """Prompts of a zero-shot teacher, with `{}` for the class."""
    weights: str | None = None
    pretrained: bool | None = None
    """True requires the network's published weights, False forbids them; None takes them if nothing else is given."""
    init: Literal["teacher"] | None = None
    task: Literal["embedding", "regression"] | None = None
    """Task of the student; None takes that of the data."""
    recipe: str | None = None
    size: int | None = None
    output_stride: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    loss: str | None = None
    temperature: float | None = None
    flip: bool | None = None
    group_by: str | None = None
    window: str | None = None
    target: str | None = None
    schema: str | None = None
    samples_per_class: int | None = None
    leave_out: tuple[str, ...] = ()
    """Classes of the dataset to train without; validation shows how the model treats their samples."""
    cache_teacher: int | None = None
    freeze: bool | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for option, value, usual in (("lr", self.lr, 0.05), ("temperature", self.temperature, 4)):
            if value is not None and not 0 < value < LARGEST:  # also catches NaN
                raise UsageError(
                    f"--{option} is {value:g}. Expected a number above zero and below {LARGEST:g}, such as {usual:g}."
                )
        if self.every_s is not None and not 0 < self.every_s < LARGEST:
            raise UsageError(f"--every is {self.every_s:g} s. Expected a time above zero, such as 1s.")
        if self.every_s is not None and not self.unlabeled:
            raise UsageError(
                "--every sets the interval of unlabeled video frames. Add --unlabeled VIDEO, or remove it."
            )
        if self.weights is not None and self.init is not None:
            raise UsageError(
                f"The student cannot be initialized from both {self.weights} and its teacher. Remove --weights "
                "or --init."
            )
        unused = [name for name in ("epochs", "lr", "batch_size", "cache_teacher") if getattr(self, name) is not None]
        if self.freeze and unused:
            raise UsageError(
                f"--freeze fits the last layer on all samples at once, so it takes no --{unused[0].replace('_', '-')}. "
                "Remove one of them."
            )
        if self.freeze and self.task is not None:
            raise UsageError(
                f"--freeze fits a classifier, but --task {self.task} trains all layers. Remove one of them."
            )
        if self.pretrained and self.init is not None:
            raise UsageError(
                "The student cannot be initialized from both published weights and its teacher. Remove --pretrained "
                "or --init."
            )

    @property
    def dataset_options(self) -> DatasetOptions:
        """Options of reading the dataset."""
        of_data = None if self.task == "embedding" else self.task
        return DatasetOptions(self.group_by, self.window, self.target, self.schema, of_data)

    @property
    def is_pretrained(self) -> bool:
        """True if the network starts from trained weights; published ones count after `with_weights`."""
        return self.weights is not None

    def with_weights(self, weights: Path) -> "TrainConfig":
        """Return the same request with the weights file that the network starts from."""
        return replace(self, weights=str(weights), pretrained=None)

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
