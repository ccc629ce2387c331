"""Explain files of samples: draw each sample next to its map."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from kdedge_runtime.drawing.caption import append_caption
from kdedge_runtime.drawing.heatmap import OPACITY, UNMEASURED
from kdedge_runtime.drawing.prediction_caption import caption_of
from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.explainers import Explainer, MapEstimate
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.model import Model
from kdedge_runtime.prediction import Prediction, decode_prediction
from kdedge_runtime.sample_prediction import predict_frame
from kdedge_runtime.sources.source import Frame, require_sample
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.file_hint import file_hint
from kdedge_runtime.util.files import UniqueNames, atomic_path, displayable
from kdedge_runtime.util.images import files_below
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["ExplainedSample", "explain_samples"]


@dataclass(frozen=True)
class ExplainedSample:
    """Explanation of one sample, written to disk."""

    file: Path
    """File of the sample."""
    written: Path
    prediction: Prediction
    estimate: MapEstimate | None = None
    """Statistics of the black-box estimate, or None if the map comes from the model file."""


def explain_samples(
    model: Model,
    paths: Sequence[Path],
    output: Path,
    *,
    class_name: str | None = None,
    opacity: float = OPACITY,
    explainer: Explainer | None = None,
    limit: int | None = None,
    progress: ProgressCallback = no_progress,
) -> list[ExplainedSample]:
    """Explain samples and write one PNG each: the sample next to its map, with label, score and class below.

    Args:
        model: the model. If it has no map and no explainer is given, the PNG has only text.
        paths: files of samples or folders of them; each window of a recording is a sample.
        output: output folder. Each PNG is named after its sample: `a.png`, or `a-000128.png` for a window. Samples
            with equal names from different folders get the suffix `-2`, `-3`, …
        class_name: name or index of the class to explain; None for the top-1 class of each sample.
        opacity: opacity of the map, in [0, 1].
        explainer: black-box explainer used instead of the map in the model file; see `kdedge_runtime.explainers`.
        limit: maximum number of samples, the first ones of the paths; None for no limit.
        progress: called after each sample and during black-box explanations.

    Returns:
        The written files, in the order of the samples.

    Raises:
        UsageError: the model has no such class, the limit is below 1, the output would overwrite an input, or a path is
            a video.
        SourceError: no sample was found, or some cannot be read. Readable samples are written first.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"A limit of {limit} samples is not supported. Expected at least 1.")
    class_index = None if class_name is None else model.class_index(class_name, by_explainer=explainer is not None)
    inputs = {file.resolve() for path in paths for file in (files_below(path) if path.is_dir() else [path])}
    names = UniqueNames()
    done: list[ExplainedSample] = []
    reading = _Reading(model.metadata.input, limit)
    for file, frame in reading.frames(paths):
        target = output / names.take(displayable(_title(frame.name)), ".png")
        if target.resolve() in inputs:
            raise UsageError(f"{target} is an input file and would be overwritten. Choose another folder: -o DIR.")
        prediction, estimate = _explain(model, frame, class_index, explainer, progress)
        drawn = Image.fromarray(model.metadata.input.draw_explanation(prediction, opacity))
        caption = caption_of(prediction, details=_details(prediction, estimate))
        with atomic_path(target) as temporary:
            append_caption(drawn, caption).save(temporary)
        done.append(ExplainedSample(file, target, prediction, estimate))
        progress("explaining samples", len(done), reading.expected)
    if reading.unreadable:
        named = f"{' '.join(map(str, reading.failures[:3]))}{' …' if len(reading.failures) > 3 else ''}"
        if not done and reading.failures:
            raise SourceError(named)
        raise SourceError(
            f"{reading.unreadable} of {reading.unreadable + len(done)} samples cannot be read"
            f"{f': {named}' if named else ', as logged.'} The other {len(done)} were explained in {output}."
        )
    if not done:
        raise SourceError(f"No samples found in {', '.join(map(str, paths))}. Pass files or folders of them.")
    return done


class _Reading:
    """Frames of files and folders. Unreadable ones are counted, so that the others are still explained."""

    def __init__(self, spec: InputSpec, limit: int | None) -> None:
        self._spec, self._limit = spec, limit
        self.failures: list[SourceError] = []
        self.unreadable = 0
        self.expected = 0

    def frames(self, paths: Sequence[Path]) -> Iterator[tuple[Path, Frame]]:
        """Yield the file and the content of each sample.

        Raises:
            UsageError: A path is a video.
        """
        done = 0
        for path in paths:
            if done == self._limit:
                return
            try:
                if not path.exists():
                    raise SourceError(
                        f"{path} does not exist.{file_hint(path)} Expected a file or a folder of samples."
                    )
                self._spec.check_sample_file(path)
                # Absolute, because a file could be named like a camera.
                with self._spec.open_source(str(path.absolute()), "all") as source:
                    self.expected += source.expected or 0
                    if self._limit is not None:
                        self.expected = min(self.expected, self._limit)
                    for frame in islice(source, None if self._limit is None else self._limit - done):
                        require_sample(path, source, frame)
                        yield frame.file or (path / frame.name if path.is_dir() else path), frame
                        done += 1
                self.unreadable += source.unreadable
            except SourceError as error:
                self.failures.append(error)
                self.unreadable += 1


def _title(name: str) -> str:
    """Return the name of a sample without folders and the suffix of its file, such as `a-128` for `b/a.csv-128`."""
    return re.sub(r"\.\w+(?=[#-]\d+$|$)", "", PurePath(name).name).replace("#", "-")


def _explain(
    model: Model, frame: Frame, class_index: int | None, explainer: Explainer | None, progress: ProgressCallback
) -> tuple[Prediction, MapEstimate | None]:
    if explainer is None:
        return predict_frame(model, frame, class_index), None
    sample = model.metadata.input.preprocess(frame.sample)
    explanation = model.predict(sample[None], class_index)
    explained = int(explanation.explained_class[0]) if class_index is None else class_index
    estimate = explainer(sample, explained, progress)
    explanation = replace(
        explanation,
        saliency_map=estimate.map[None],
        explained_class=np.array([explained], np.int64),
        display=UNMEASURED,
    )
    return decode_prediction(model, frame, explanation, clock=lambda: frame.captured_at), estimate


def _details(prediction: Prediction, estimate: MapEstimate | None) -> list[str]:
    if prediction.saliency_map is None:
        return ["no map in this model"]
    account = [] if estimate is None else [_account(estimate)]
    legend = prediction.input.evidence_legend(has_values=TASKS[prediction.task].has_values)
    return [legend.format(prediction.explained), *account]


def _account(estimate: MapEstimate) -> str:
    error = estimate.relative_error
    sure = f"error ± {error:.0%} of the peak" if np.isfinite(error) else "too few to estimate the error"
    return f"{estimate.evaluations:,} evaluations, {sure}"
