"""Prediction of single samples and of files, for programs of your own."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.modalities import Sample
from kdedge_runtime.model import Model
from kdedge_runtime.prediction import Prediction, decode_prediction
from kdedge_runtime.sources.source import Frame, require_sample
from kdedge_runtime.util.file_hint import file_hint
from kdedge_runtime.util.files import Location

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["predict", "predict_file", "predict_frame"]


def predict(model: Model, sample: "Sample | Image | Mapping[str, Any]", class_name: str | None = None) -> Prediction:
    """Predict and explain one raw sample; `Model.predict` takes preprocessed batches.

    Args:
        model: the model.
        sample: an upright image, uint8 RGB `[H, W, 3]` of any size; a sound, float32 `[samples]` at the rate of the
            model, cut or padded at its center to the window; a window of a time series, float32 `[steps, channels]`; or
            a row, a text, number, boolean or None by column name.
        class_name: name or index of the class to explain; None for the top-1 class.

    Raises:
        UsageError: the model has no such class or no map, or a row lacks a column or has another unit.
        SourceError: the sample does not fit the model.
        ModelFileError: an output of the model is not finite.
    """
    _require_model(model)
    if isinstance(sample, str | Path):
        raise UsageError(f"The sample is a {type(sample).__name__}. Expected its content; for a file: predict_file.")
    class_index = None if class_name is None else model.class_index(class_name)
    frame = Frame(0, model.metadata.input.as_sample(sample), time.monotonic(), "sample")
    return predict_frame(model, frame, class_index)


def predict_file(model: Model, path: Location, class_name: str | None = None) -> Iterator[Prediction]:
    """Predict and explain the samples of a file: an image, the windows of a recording, or the rows of a table.

    Args:
        model: the model.
        path: the file.
        class_name: name or index of the class to explain; None for the top-1 class of each sample.

    Returns:
        Predictions for the readable samples, at least one, in the order of the file. They are computed one by
        one, so that errors of the content are raised when they are read.

    Raises:
        UsageError: the model has no such class or no map, the file is a video, or a table lacks a column.
        SourceError: the file does not exist, is of another kind, or has no readable sample.
        DataError: a table is damaged.
        MissingDependency: the package that reads this kind of file is not installed.
        ModelFileError: an output of the model is not finite.
    """
    _require_model(model)
    file, class_index = Path(path), None if class_name is None else model.class_index(class_name)
    if not file.is_file():
        raise SourceError(f"{file} is not a file.{file_hint(file)} Expected a file with samples of the model.")
    model.metadata.input.check_sample_file(file)
    return _predictions(model, file, class_index)


def _require_model(model: object) -> None:
    if not isinstance(model, Model):
        raise UsageError(f"The model is a {type(model).__name__}. Expected a loaded model: Model.load(PATH).")


def _predictions(model: Model, file: Path, class_index: int | None) -> Iterator[Prediction]:
    is_empty = True
    # Absolute, because a file could be named like a camera.
    with model.metadata.input.open_source(str(file.absolute()), "all") as source:
        for frame in source:
            require_sample(file, source, frame)
            is_empty = False
            yield predict_frame(model, frame, class_index)
    if is_empty:
        raise SourceError(f"{file} has no readable sample. Expected at least one.")


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
