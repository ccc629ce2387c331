"""What a validation is given: the models, the images, and the device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kdedge_export.candidates import Role
from kdedge_export.metrics.torch_predictions import TorchModel
from kdedge_export.validate.footprint import Footprint
from kdedge_export.validate.report import Data
from kdedge_runtime import Model
from kdedge_runtime.devices import Budgets
from kdedge_runtime.errors import DataError
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.util.arrays import Integers, Pixels

__all__ = ["Deployment", "Models", "Origin", "ValidationSet"]


@dataclass(frozen=True)
class Origin:
    """Where the weights of a PyTorch model are from, for the report."""

    name: str = ""
    """Such as its architecture."""
    sha256: str | None = None
    """Of its weights, where it is known."""


@dataclass(frozen=True)
class Models:
    """Who takes part."""

    student: TorchModel | None
    """Exported PyTorch module (`kdedge_export.torch_export.deploy`); None for a file of another framework."""
    fp32: Model
    int8: Model | None = None
    teacher: TorchModel | Model | None = None
    """What the student learned from, if it is at hand; it takes the same pixels."""
    trained_input: ImageInput | None = None
    """The input that the student was trained with, which the files must state; None leaves that unchecked."""
    origins: Mapping[Role, Origin] = field(default_factory=dict)

    @property
    def by_role(self) -> dict[Role, TorchModel | Model]:
        """Those that there are, in the order in which the model travels."""
        roles: dict[Role, TorchModel | Model | None] = {
            "teacher": self.teacher,
            "student": self.student,
            "fp32": self.fp32,
            "int8": self.int8,
        }
        return {role: model for role, model in roles.items() if model is not None}


@dataclass(frozen=True)
class ValidationSet:
    """The images that every model is asked about.

    Raises:
        DataError: no images, or targets, names or classes that do not fit.
    """

    images: Pixels
    """uint8 RGB `[N, H, W, 3]` at the model's size, brought there as in training."""
    labels: Sequence[str]
    """Class names in the order of the student's logits."""
    targets: Integers | None = None
    """int64 `[N]`, the right classes; None for images without labels."""
    names: Sequence[str] | None = None
    """What to call each image, such as its path; numbers where left out."""
    held_out: NDArray[np.bool_] | None = None
    """bool `[N]`, the images that did not fit the files' temperature; None for all."""
    masks: Sequence[NDArray[np.bool_] | None] | None = None
    """bool `[H, W]` of each image, True on the object, or None where it is unknown."""
    source: Data = field(default_factory=Data)
    """What they are, for the report."""

    def __post_init__(self) -> None:
        n = len(self.images)
        if n == 0:
            raise DataError("There are no images to validate on. Name a folder that has some: `--data DATA`.")
        per_image = {"targets": self.targets, "names": self.names, "flags": self.held_out, "masks": self.masks}
        for what, values in per_image.items():
            if values is not None and len(values) != n:
                raise DataError(f"There are {n} images and {len(values)} {what}. Expected one for every image.")
        if self.targets is not None and not ((self.targets >= 0) & (self.targets < len(self.labels))).all():
            raise DataError(
                f"A target is outside the {len(self.labels)} labels (found {self.targets.min()} to "
                f"{self.targets.max()}). Expected indices into the model's labels; validate on the classes that the "
                "model was trained on."
            )


@dataclass(frozen=True)
class Deployment:
    """The device that the files are for, and what they take."""

    device: str | None = None
    budgets: Budgets = field(default_factory=Budgets)
    """What a file may take there."""
    footprints: Mapping[Role, Footprint] = field(default_factory=dict)
    """What the files do take."""
