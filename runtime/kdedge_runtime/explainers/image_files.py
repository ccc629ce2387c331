"""Pictures with their explanations beside them, as files."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from kdedge_runtime.drawing.caption import Caption, with_caption_below
from kdedge_runtime.drawing.heatmap import UNMEASURED, display_heat, peak
from kdedge_runtime.drawing.overlay import OPACITY, draw_overlay
from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.explainers import Estimate, Explainer
from kdedge_runtime.model import Model
from kdedge_runtime.prediction import Answer, read_answer
from kdedge_runtime.preprocess import fit, visible_box
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.util.arrays import Pixels
from kdedge_runtime.util.files import UniqueNames, staged, written
from kdedge_runtime.util.images import picture_files, read_picture

__all__ = ["Explained", "explain", "explanation_picture"]

_GAP_PX = 6
_LONGEST_SIDE_PX = 1280


@dataclass(frozen=True)
class Explained:
    """One picture's explanation on the disk."""

    picture: Path
    written: Path
    answer: Answer
    estimate: Estimate | None = None
    """How the map was found, where it is not the file's own."""


def explain(
    model: Model,
    pictures: Sequence[Path],
    output: Path,
    *,
    class_name: str | None = None,
    opacity: float = OPACITY,
    explainer: Explainer | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Explained]:
    """Explain pictures and write one PNG each: the picture beside its overlay; label, probability and class below.

    Args:
        model: the model; without a map of its own and without an explainer the overlay holds words only.
        pictures: picture files, or folders of them.
        output: the folder to write to. Pictures of the same name, from different folders, get `-2`, `-3`, …
        class_name: the class to explain in every picture, by name or number; None explains the best of each.
        opacity: cover of full heat, in [0, 1].
        explainer: explains in the place of the file's own map; see `kdedge_runtime.explainers`.
        progress: takes what is being done, how much of it is done, and how much there is to do.

    Returns:
        What was written, in the order of the pictures.

    Raises:
        UsageError: the model has no such class, or the output would overwrite one of the pictures.
        SourceError: some pictures cannot be read, or there are none; those that can be read are written first.
    """
    class_index = None if class_name is None else model.class_index(class_name, by_explainer=explainer is not None)
    files = list(_files(pictures))
    read = {path.resolve() for path in files}
    names = UniqueNames()
    done: list[Explained] = []
    failures: list[SourceError] = []
    for index, path in enumerate(files):
        try:
            frame = Frame(index, read_picture(path), 0.0, written(path.name))
        except SourceError as error:
            failures.append(error)
            continue
        image = fit(frame.rgb, model.metadata.input)
        explanation, estimate = model.predict(image[None], class_index), None
        if explainer is not None:
            shown = None if progress is None else partial(progress, "this picture")
            explained = int(explanation.explained_class[0]) if class_index is None else class_index
            estimate = explainer(image, explained, shown)
            explanation = replace(
                explanation,
                saliency_map=estimate.map[None],
                explained_class=np.array([explained], np.int64),
                display=UNMEASURED,
            )
        answer = read_answer(model, frame, explanation, clock=lambda: 0.0)
        target = output / names.take(written(path.stem), ".png")
        if target.resolve() in read:
            raise UsageError(
                f"{target} is a picture to explain, and would be overwritten. Name another folder: -o DIR."
            )
        with staged(target) as temporary:
            Image.fromarray(explanation_picture(model, answer, opacity, estimate)).save(temporary)
        if progress is not None:
            progress("pictures", index + 1, len(files))
        done.append(Explained(path, target, answer, estimate))
    if failures:
        named = f"{' '.join(map(str, failures[:3]))}{' …' if len(failures) > 3 else ''}"
        if not done:
            raise SourceError(named)
        raise SourceError(
            f"{len(failures)} of {len(failures) + len(done)} pictures cannot be read: {named} "
            f"The other {len(done)} were explained in {output}."
        )
    if not done:
        raise SourceError(f"There are no pictures in {', '.join(map(str, pictures))}. Name files or folders of them.")
    return done


def explanation_picture(
    model: Model, answer: Answer, opacity: float = OPACITY, estimate: Estimate | None = None
) -> Pixels:
    """The picture of an answer beside its overlay, uint8 RGB, each at most 1280 pixels long, and the answer below."""
    picture = _shrunk(answer.frame.rgb)
    height, width = picture.shape[:2]
    heat = None
    details: tuple[str, ...] = ("no map in this model",)
    if answer.saliency_map is not None:
        strongest = peak(answer.saliency_map)
        heat = display_heat(answer.saliency_map, strongest, answer.display.typical_contrast)
        details = (f"heat: evidence for {answer.explained}",)
    if estimate is not None:
        details += (_account(estimate),)
    box = visible_box(height, width, model.metadata.input)
    overlay = draw_overlay(picture, heat, box, opacity=opacity, shift=answer.display.shift)
    # A small picture's overlay comes enlarged.
    plain = Image.fromarray(picture).resize(overlay.shape[1::-1], Image.Resampling.BICUBIC)
    gap = np.full((overlay.shape[0], _GAP_PX, 3), 255, dtype=np.uint8)
    pair = Image.fromarray(np.concatenate([np.asarray(plain), gap, overlay], axis=1))
    return np.asarray(with_caption_below(pair, Caption(answer.label, answer.probability, details)))


def _account(estimate: Estimate) -> str:
    error = estimate.relative_error
    sure = f"error ± {100 * error:.0f} % of the peak" if np.isfinite(error) else "too few to tell the error"
    return f"{estimate.evaluations:,} evaluations, {sure}"


def _files(pictures: Iterable[Path]) -> Iterable[Path]:
    for path in pictures:
        yield from picture_files(path) if path.is_dir() else [path]


def _shrunk(picture: Pixels) -> Pixels:
    if max(picture.shape) <= _LONGEST_SIDE_PX:
        return picture
    image = Image.fromarray(picture)
    image.thumbnail((_LONGEST_SIDE_PX, _LONGEST_SIDE_PX), Image.Resampling.LANCZOS)
    return np.asarray(image)
