"""Explain image files: write each image next to its heat map."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from kdedge_runtime.drawing.caption import Caption, append_caption
from kdedge_runtime.drawing.heatmap import UNMEASURED, display_heat, peak
from kdedge_runtime.drawing.overlay import OPACITY, draw_overlay
from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.explainers import Explainer, MapEstimate
from kdedge_runtime.modalities.image import require_image
from kdedge_runtime.model import Model
from kdedge_runtime.prediction import Prediction, decode_prediction
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.util.arrays import Pixels
from kdedge_runtime.util.files import UniqueNames, atomic_path, displayable
from kdedge_runtime.util.images import image_files, read_image
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["ExplainedImage", "explain_images", "explanation_image"]

_GAP_PX = 6
_LONGEST_SIDE_PX = 1280


@dataclass(frozen=True)
class ExplainedImage:
    """Explanation of one image, written to disk."""

    image: Path
    written: Path
    prediction: Prediction
    estimate: MapEstimate | None = None
    """Statistics of the black-box estimate, or None if the map comes from the model file."""


def explain_images(
    model: Model,
    images: Sequence[Path],
    output: Path,
    *,
    class_name: str | None = None,
    opacity: float = OPACITY,
    explainer: Explainer | None = None,
    progress: ProgressCallback = no_progress,
) -> list[ExplainedImage]:
    """Explain images and write one PNG each: the image next to its overlay, with label, probability and class below.

    Args:
        model: the model. If it has no map and no explainer is given, the overlay contains only text.
        images: image files or folders of them.
        output: output folder. Images with equal names from different folders get the suffix `-2`, `-3`, …
        class_name: name or index of the class to explain; None for the top-1 class of each image.
        opacity: heat map opacity, in [0, 1].
        explainer: black-box explainer used instead of the map in the model file; see `kdedge_runtime.explainers`.
        progress: called after each image and during black-box explanations.

    Returns:
        The written files, in the order of the images.

    Raises:
        UsageError: the model takes no images or has no such class, or the output would overwrite an input image.
        SourceError: no image was found, or some cannot be read. Readable images are written first.
    """
    class_index = None if class_name is None else model.class_index(class_name, by_explainer=explainer is not None)
    spec, files = require_image(model.metadata.input, model.path), list(_files(images))
    read = {path.resolve() for path in files}
    names = UniqueNames()
    done: list[ExplainedImage] = []
    failures: list[SourceError] = []
    for index, path in enumerate(files):
        try:
            frame = Frame(index, read_image(path), 0.0, displayable(path.name))
        except SourceError as error:
            failures.append(error)
            continue
        image = spec.preprocess(frame.sample)
        explanation, estimate = model.predict(image[None], class_index), None
        if explainer is not None:
            explained = int(explanation.explained_class[0]) if class_index is None else class_index
            estimate = explainer(image, explained, progress)
            explanation = replace(
                explanation,
                saliency_map=estimate.map[None],
                explained_class=np.array([explained], np.int64),
                display=UNMEASURED,
            )
        prediction = decode_prediction(model, frame, explanation, clock=lambda: 0.0)
        target = output / names.take(displayable(path.stem), ".png")
        if target.resolve() in read:
            raise UsageError(f"{target} is an input image and would be overwritten. Choose another folder: -o DIR.")
        with atomic_path(target) as temporary:
            Image.fromarray(explanation_image(model, prediction, opacity, estimate)).save(temporary)
        progress("explaining images", index + 1, len(files))
        done.append(ExplainedImage(path, target, prediction, estimate))
    if failures:
        named = f"{' '.join(map(str, failures[:3]))}{' …' if len(failures) > 3 else ''}"
        if not done:
            raise SourceError(named)
        raise SourceError(
            f"{len(failures)} of {len(failures) + len(done)} images cannot be read: {named} The other {len(done)} "
            f"were explained in {output}."
        )
    if not done:
        raise SourceError(f"No images found in {', '.join(map(str, images))}. Pass image files or folders of them.")
    return done


def explanation_image(
    model: Model, prediction: Prediction, opacity: float = OPACITY, estimate: MapEstimate | None = None
) -> Pixels:
    """Return an image next to its overlay with the prediction below, uint8 RGB. Each side is at most 1280 pixels."""
    pixels = _shrunk(prediction.frame.sample)
    height, width = pixels.shape[:2]
    heat = None
    details: tuple[str, ...] = ("no map in this model",)
    if prediction.saliency_map is not None:
        strongest = peak(prediction.saliency_map)
        heat = display_heat(prediction.saliency_map, strongest, prediction.display.typical_contrast)
        details = (f"heat map: evidence for {prediction.explained}",)
    if estimate is not None:
        details += (_account(estimate),)
    box = require_image(model.metadata.input, model.path).visible_box(height, width)
    overlay = draw_overlay(pixels, heat, box, opacity=opacity, shift=prediction.display.shift)
    # The overlay of a small image is enlarged.
    plain = Image.fromarray(pixels).resize(overlay.shape[1::-1], Image.Resampling.BICUBIC)
    gap = np.full((overlay.shape[0], _GAP_PX, 3), 255, dtype=np.uint8)
    pair = Image.fromarray(np.concatenate([np.asarray(plain), gap, overlay], axis=1))
    if prediction.unknown:
        caption = Caption(prediction.answer, "", None, (prediction.nearest_text, *details))
    else:
        caption = Caption(prediction.label, prediction.score_text, prediction.share, details)
    return np.asarray(append_caption(pair, caption))


def _account(estimate: MapEstimate) -> str:
    error = estimate.relative_error
    sure = f"error ± {100 * error:.0f} % of the peak" if np.isfinite(error) else "too few to estimate the error"
    return f"{estimate.evaluations:,} evaluations, {sure}"


def _files(images: Iterable[Path]) -> Iterable[Path]:
    for path in images:
        yield from image_files(path) if path.is_dir() else [path]


def _shrunk(pixels: Pixels) -> Pixels:
    if max(pixels.shape) <= _LONGEST_SIDE_PX:
        return pixels
    image = Image.fromarray(pixels)
    image.thumbnail((_LONGEST_SIDE_PX, _LONGEST_SIDE_PX), Image.Resampling.LANCZOS)
    return np.asarray(image)
