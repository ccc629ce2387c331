"""Pictures with their explanations beside them, as files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from kdedge_runtime.answer import Answer, read_answer
from kdedge_runtime.arrays import Pixels
from kdedge_runtime.caption import Caption, with_caption_below
from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.files import UniqueNames, staged
from kdedge_runtime.heat import peak, rectified
from kdedge_runtime.model import Model
from kdedge_runtime.overlay import OPACITY, draw_overlay
from kdedge_runtime.pictures import picture_files, read_picture
from kdedge_runtime.preprocess import fit, visible_box
from kdedge_runtime.sources.frame import Frame

__all__ = ["Explained", "explain", "explanation_picture"]

_GAP_PX = 6
_LONGEST_SIDE_PX = 1280


@dataclass(frozen=True)
class Explained:
    """One picture's explanation on the disk."""

    picture: Path
    written: Path
    answer: Answer


def explain(
    model: Model,
    pictures: Sequence[Path],
    output: Path,
    *,
    class_name: str | None = None,
    opacity: float = OPACITY,
) -> list[Explained]:
    """Explain pictures and write one PNG each: the picture beside its overlay; label, probability and class below.

    Args:
        model: the model; it should give a map (without one the overlay holds words only).
        pictures: picture files, or folders of them.
        output: the folder to write to. Pictures of the same name, from different folders, get `-2`, `-3`, …
        class_name: the class to explain in every picture, by name or number; None explains the best of each.
        opacity: cover of full heat, in [0, 1].

    Returns:
        What was written, in the order of the pictures.

    Raises:
        UsageError: the model has no such class, or the output would overwrite one of the pictures.
        SourceError: some pictures cannot be read, or there are none; those that can be read are written first.
    """
    class_index = None if class_name is None else model.class_index(class_name)
    files = list(_files(pictures))
    read = {path.resolve() for path in files}
    names = UniqueNames()
    done: list[Explained] = []
    failures: list[SourceError] = []
    for index, path in enumerate(files):
        try:
            frame = Frame(index, read_picture(path), 0.0, path.name)
        except SourceError as error:
            failures.append(error)
            continue
        explanation = model.predict(fit(frame.rgb, model.metadata.input)[None], class_index)
        answer = read_answer(model, frame, explanation, clock=lambda: 0.0)
        target = output / names.take(path.stem, ".png")
        if target.resolve() in read:
            raise UsageError(
                f"{target} is a picture to explain, and would be overwritten. Name another folder: -o DIR."
            )
        with staged(target) as temporary:
            Image.fromarray(explanation_picture(model, answer, opacity)).save(temporary)
        done.append(Explained(path, target, answer))
    if failures:
        raise SourceError(
            f"{len(failures)} of {len(failures) + len(done)} pictures cannot be read: "
            f"{' '.join(map(str, failures[:3]))}{' …' if len(failures) > 3 else ''} "
            f"The other {len(done)} were explained in {output}."
        )
    if not done:
        raise SourceError(f"There are no pictures in {', '.join(map(str, pictures))}. Name files or folders of them.")
    return done


def explanation_picture(model: Model, answer: Answer, opacity: float = OPACITY) -> Pixels:
    """The picture of an answer beside its overlay, uint8 RGB, each at most 1280 pixels long, and the answer below."""
    picture = _shrunk(answer.frame.rgb)
    height, width = picture.shape[:2]
    heat = None
    details: tuple[str, ...] = ("no map in this model",)
    if answer.saliency_map is not None:
        heat = rectified(answer.saliency_map, peak(answer.saliency_map))
        details = (f"heat: evidence for {answer.explained}",)
    box = visible_box(height, width, model.metadata.input)
    overlay = draw_overlay(picture, heat, box, opacity=opacity)
    # A small picture's overlay comes enlarged.
    plain = Image.fromarray(picture).resize(overlay.shape[1::-1], Image.Resampling.BICUBIC)
    gap = np.full((overlay.shape[0], _GAP_PX, 3), 255, dtype=np.uint8)
    pair = Image.fromarray(np.concatenate([np.asarray(plain), gap, overlay], axis=1))
    return np.asarray(with_caption_below(pair, Caption(answer.label, answer.probability, details)))


def _files(pictures: Iterable[Path]) -> Iterable[Path]:
    for path in pictures:
        yield from picture_files(path) if path.is_dir() else [path]


def _shrunk(picture: Pixels) -> Pixels:
    if max(picture.shape) <= _LONGEST_SIDE_PX:
        return picture
    image = Image.fromarray(picture)
    image.thumbnail((_LONGEST_SIDE_PX, _LONGEST_SIDE_PX), Image.Resampling.LANCZOS)
    return np.asarray(image)
