"""Object annotations: boxes from a table, or masks from a folder of images.

```
boxes.csv       file,x1,y1,x2,y2    one box per line, in px of the upright image; `file` as in reports: val/cat/1.jpg
masks/          val/cat/1.png       one mask per image, not black on the object
```
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdedge.data.samples import ImageSample, StoredSample
from kdedge_runtime.boxes import box_mask, boxes_at_input
from kdedge_runtime.errors import DataError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.modalities.image import ImageInput, require_image
from kdedge_runtime.util.images import IMAGE_SUFFIXES, open_image, upright_size
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["BOXES", "boxes_beside", "object_masks", "read_boxes"]

BOXES = "boxes.csv"
"""Name of the box table in the dataset folder."""
_COLUMNS = ("file", "x1", "y1", "x2", "y2")

Mask = NDArray[np.bool_]


def boxes_beside(source: str) -> Path | None:
    """Return the box table in the dataset folder or its parent, if it exists."""
    folder = Path(source)
    places = (folder / BOXES, folder.parent / BOXES) if folder.is_dir() else ()
    return next((place for place in places if place.is_file()), None)


def read_boxes(path: Path) -> dict[str, list[tuple[float, float, float, float]]]:
    """Read boxes as (left, top, right, bottom) in px, by image name.

    Boxes without height or width, which rounding leaves in published tables, are skipped.

    Raises:
        DataError: A column is missing, or a line is not a box.
    """
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    with path.open(newline="", encoding="utf-8-sig") as lines:
        table = csv.DictReader(lines)
        missing = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise DataError(
                f"{path} has no column {', '.join(missing)}. Expected {','.join(_COLUMNS)} in its first line."
            )
        for row in table:
            try:
                left, top, right, bottom = (float(row[name]) for name in _COLUMNS[1:])
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"{path}, line {table.line_num}: a box needs four numbers. Expected x1,y1,x2,y2."
                ) from error
            if not (left <= right and top <= bottom):
                raise DataError(
                    f"{path}, line {table.line_num}: the box ends before it begins. "
                    "Expected x1 < x2 and y1 < y2, in px."
                )
            if left < right and top < bottom:
                boxes.setdefault(row["file"], []).append((left, top, right, bottom))
    return boxes


def object_masks(
    where: Path, samples: Sequence[StoredSample], spec: InputSpec, progress: ProgressCallback = no_progress
) -> list[Mask | None]:
    """Return the object mask of each image at the model's input size, bool `[H, W]`, or None if unknown.

    Args:
        where: table of boxes or folder of masks, as above.
        samples: images.
        spec: input of the model.
        progress: called after every image.

    Raises:
        UsageError: the model takes no images.
        DataError: the table is damaged, or none of the images is annotated.
    """
    image = require_image(spec, "The model")
    if not where.exists():
        raise DataError(
            f"{where} does not exist. Expected a table {','.join(_COLUMNS)} or a folder of masks: --boxes FILE."
        )
    masks: list[Mask | None] = []
    boxes = {} if where.is_dir() else read_boxes(where)
    for done, sample in enumerate(samples, 1):
        masks.append(
            _painted(where, sample, image) if where.is_dir() else _boxed(boxes.get(sample.name), sample, image)
        )
        progress("reading annotations", done, len(samples))
    if all(mask is None for mask in masks):
        raise DataError(
            f"{where} has annotations for none of the {len(samples):,} images, such as {samples[0].name}. "
            "Expected image names relative to the dataset, as in this example."
        )
    return masks


def _boxed(
    boxes: list[tuple[float, float, float, float]] | None, sample: StoredSample, spec: ImageInput
) -> Mask | None:
    if boxes is None:
        return None
    assert isinstance(sample, ImageSample)
    with sample.open() as image:
        width, height = upright_size(image)
    seen = boxes_at_input(np.array(boxes, dtype=np.float32), height, width, spec)
    return np.asarray(box_mask(seen, spec.height, spec.width).any(axis=0))


def _painted(folder: Path, sample: StoredSample, spec: ImageInput) -> Mask | None:
    image = folder / sample.name
    named = (image.with_suffix(suffix) for suffix in IMAGE_SUFFIXES)
    path = next((path for path in named if path.is_file()), None)
    if path is None:
        return None
    with open_image(str(path)) as opened:
        # Palette indices are classes; 0 is the background.
        values = np.asarray(opened if opened.mode == "P" else opened.convert("RGB"))
    painted = (values if values.ndim == 2 else values.max(axis=2)) > 0
    rgb = np.asarray(Image.fromarray(painted).convert("RGB"))
    return np.asarray(spec.preprocess(rgb)[:, :, 0] > 127)
