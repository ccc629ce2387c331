"""The temperature of a run's probabilities: fitted on one half of the validation side, judged on the other.

Nobody may judge a temperature by the pictures that it was fitted on. A hash of each picture's name sends it to one
half, on every machine and for ever, so that `kdedge validate` finds the other without asking. Both halves have chosen
the best epoch, which makes a model look somewhat surer of right answers than it is on new pictures.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdedge.data import Collection, Split, decode, scan
from kdedge.data.splits import hashed_halves
from kdedge.models.run_folder import is_run, read_run
from kdedge.pipelines.origins import as_model_classes
from kdedge_export.metrics.calibration import HIGHEST, LOWEST, fit_temperature
from kdedge_export.metrics.torch_predictions import predict
from kdedge_runtime import Model
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.util.arrays import evenly_spaced

__all__ = ["Fit", "fit_run", "fitting_half"]

FEWEST_IMAGES, MOST_IMAGES = 30, 2000
"""A temperature of fewer is left at 1; more than the most change it little."""
_SEED = 1
"""Not that by which validation was cut from training: its ranks are all low."""


@dataclass(frozen=True)
class Fit:
    """What came of fitting a temperature."""

    temperature: float
    """1.0 where none could be fitted."""
    images: int
    """It was fitted on."""
    why_not: str | None = None
    """Why it was left at 1."""


def fitting_half(side: Split) -> Split:
    """The pictures of a validation side that temperatures are fitted on."""
    return hashed_halves(side, val_fraction=0.5, seed=_SEED)[1]


def fit_run(source: str, model: Model) -> Fit | None:
    """Fit the temperature of a run's exported file; None for a model without a run, whose pictures are unknown.

    Args:
        source: as given to `kdedge export`.
        model: the fp32 file, at temperature 1.
    """
    if not is_run(Path(source)):
        return None
    try:
        collection = scan(read_run(Path(source)).data["source"])
        return _fit(collection, model)
    except KdedgeError as error:  # an export needs no pictures
        return Fit(1.0, 0, f"its pictures cannot be read: {error}")


def _fit(collection: Collection, model: Model) -> Fit:
    half = fitting_half(collection.val)
    decoded = decode(half.take(evenly_spaced(len(half), MOST_IMAGES).tolist()), model.metadata.input)
    if len(decoded) < FEWEST_IMAGES:
        return Fit(1.0, 0, f"{len(decoded)} pictures are too few, {FEWEST_IMAGES} are needed")
    targets = as_model_classes(decoded.targets, collection.labels, model.metadata.labels, collection.source)
    logits = predict(model, decoded.images).logits
    temperature = fit_temperature(logits, np.asarray(targets))
    why_not = _why_none(temperature, int((logits.argmax(axis=1) != targets).sum()), len(decoded))
    return Fit(temperature, len(decoded)) if why_not is None else Fit(1.0, 0, why_not)


def _why_none(temperature: float, wrong: int, images: int) -> str | None:
    """Why the fitted temperature is none, an end of the range."""
    if temperature == LOWEST:
        if not wrong:
            return f"no answer of {images} is wrong, so there is no best one"
        return f"the best one is below {LOWEST:g}, as the logits of {images} pictures hardly differ"
    if temperature == HIGHEST:
        return (
            f"{wrong} answers of {images} are wrong and the right classes score no higher than others, so none makes "
            "the answers likely"
        )
    return None
