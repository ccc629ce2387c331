"""Prediction of single samples and of files, for programs of your own."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdedge_runtime.errors import SourceError
from kdedge_runtime.modalities import Sample
from kdedge_runtime.modalities.table_column import row_sample
from kdedge_runtime.model import Model
from kdedge_runtime.prediction import Prediction, decode_prediction
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.util.files import Location
from kdedge_runtime.util.table_rows import row_of_values

__all__ = ["predict", "predict_file", "predict_frame"]


def predict(model: Model, sample: Sample | Mapping[str, Any], class_name: str | None = None) -> Prediction:
    """Predict and explain one raw sample.

    Args:
        model: the model.
        sample: an image, uint8 RGB `[H, W, 3]` of any size; a sound, float32 `[samples]` at the rate of the model; a
            window of a time series, float32 `[steps, channels]`; or a row, a text, number, boolean or None
            by column name.
        class_name: name or index of the class to explain; None for the top-1 class.

    Raises:
        UsageError: the model has no such class, or a row lacks a column.
        SourceError: the sample does not fit the model.
        ModelFileError: an output of the model is not finite.
    """
    class_index = None if class_name is None else model.class_index(class_name)
    if isinstance(sample, Mapping):
        row = row_of_values(sample, 1)
        array = row_sample(row.titles, row.cells)
    else:
        array = np.asarray(sample)
    return predict_frame(model, Frame(0, array, time.monotonic(), "sample"), class_index)


def predict_file(model: Model, path: Location, class_name: str | None = None) -> list[Prediction]:
    """Predict and explain the samples of a file: an image, the windows of a recording, or the rows of a table.

    Args:
        model: the model.
        path: the file.
        class_name: name or index of the class to explain; None for the top-1 class of each sample.

    Returns:
        One prediction per readable sample, at least one, in the order of the file.

    Raises:
        UsageError: the model has no such class.
        SourceError: the file does not exist, is of another kind, or has no readable sample.
        ModelFileError: an output of the model is not finite.
    """
    spec, file = model.metadata.input, Path(path)
    class_index = None if class_name is None else model.class_index(class_name)
    if not file.is_file():
        raise SourceError(f"{file} is not a file. Expected a file with samples of the model.")
    spec.check_sample_file(file)
    with spec.open_source(str(file.absolute()), "all") as source:  # absolute, since a file may be named like a camera
        found = [predict_frame(model, frame, class_index) for frame in source]
    if not found:
        raise SourceError(f"{file} has no readable sample. Expected at least one.")
    return found


def predict_frame(model: Model, frame: Frame, class_index: int | None = None) -> Prediction:
    """Predict and explain one frame, with an age of 0.

    Args:
        model: the model.
        frame: the frame.
        class_index: class to explain; None for the top-1 class.

    Raises:
        ModelFileError: an output of the model is not finite.
    """
    explanation = model.predict(model.metadata.input.preprocess(frame.sample)[None], class_index)
    return decode_prediction(model, frame, explanation, clock=lambda: frame.captured_at)
