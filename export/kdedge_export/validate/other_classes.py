"""Maps of other classes than the top one, which a user may ask for and no other measurement compares."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kdedge_export.candidates import Role
from kdedge_export.metrics import agreement
from kdedge_export.metrics.comparison import pair_pearson
from kdedge_export.metrics.torch_predictions import TorchModel, predict
from kdedge_export.validate.exactness import Bounds, measure_exactness
from kdedge_export.validate.float_tolerance import Hardest
from kdedge_runtime import Model
from kdedge_runtime.util.arrays import Integers, Pixels

__all__ = ["OTHER_CLASS_IMAGES", "OtherClasses", "compare_other_classes", "other_classes"]

OTHER_CLASS_IMAGES = 32
"""Images whose map of another class is compared, at most."""


@dataclass(frozen=True)
class OtherClasses:
    """Maps of one other class of each image, against the reference's."""

    images: int
    fp32_error: Hardest | None
    """None where the maps cannot be compared, and where the fp32 file is the reference."""
    int8_pearson: float | None
    """Mean correlation of the int8 file's; None without an int8 file, or without a map."""


def other_classes(top: Integers, count: int) -> Integers:
    """Return a class for each image that is not its top one; over the images all classes come up.

    Args:
        top: int64 `[N]`.
        count: of classes, 2 or more.
    """
    return (top + 1 + np.arange(len(top)) % (count - 1)) % count


def compare_other_classes(
    reference: TorchModel | Model,
    files: Mapping[Role, Model],
    images: Pixels,
    top: Integers,
    count: int,
    bounds: Bounds,
) -> OtherClasses:
    """Compare maps of other classes.

    Args:
        reference: the exported module, with a map; or the fp32 file itself.
        files: the fp32 file, and the int8 one where there is one.
        images: uint8 RGB `[N, H, W, 3]`.
        top: int64 `[N]`, the reference's answers.
        count: of classes, 2 or more.
        bounds: of the fp32 file's errors.
    """
    asked = other_classes(top, count)
    ours, error = predict(reference, images, asked), None
    if not isinstance(reference, Model):
        theirs = predict(files["fp32"], images, asked)
        error = measure_exactness(reference, files["fp32"], images, ours, theirs, bounds).maps
    pearson = None
    if "int8" in files and (scores := pair_pearson(ours, predict(files["int8"], images, asked))) is not None:
        pearson = None if np.isnan(scores).all() else agreement.mean(scores)
    return OtherClasses(len(images), error, pearson)
