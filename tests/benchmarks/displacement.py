"""Compare maps with object boxes, unchanged and shifted by their measured displacement.

    python tests/benchmarks/displacement.py DATA MODEL.onnx…

DATA is a folder of images with `boxes.csv`. The maps are for the ground-truth class if the file has the folder's
classes, otherwise for the predictions. Prints a row of the table in benchmarks/saliency-maps.md for each file. The
offset is the mean distance of the map's center of mass from that of the boxes, to the right and down, in map positions.
"""

import sys
from pathlib import Path

import numpy as np

from kdedge.data import decode, index_dataset
from kdedge.data.annotations import boxes_beside, object_masks
from kdedge_export.metrics.baseline_maps import upsampled
from kdedge_export.metrics.localization import localize_all
from kdedge_export.metrics.torch_predictions import predict
from kdedge_runtime import Model
from kdedge_runtime.modalities.image import require_image


def main(data: str, *files: str) -> None:
    dataset = index_dataset(data)
    boxes = boxes_beside(dataset.source)
    if boxes is None:
        raise SystemExit(f"{data} has no boxes.csv.")
    print("| file | map | cells | displacement | offset | moved | on the object | moved | energy inside | moved |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for file in files:
        model = Model.load(file)
        spec = require_image(model.metadata.input, file)
        decoded = decode(dataset.val, spec)
        masks = object_masks(boxes, decoded.stored, spec)
        known = [index for index, mask in enumerate(masks) if mask is not None and mask.any()]
        images = decoded.samples[known]
        objects = [mask for mask in masks if mask is not None and mask.any()]
        targets = decoded.targets[known] if dataset.labels == model.metadata.labels else None
        maps = predict(model, images, targets).maps
        assert maps is not None
        outputs = model.metadata.outputs
        across, down = outputs.display.shift
        found = localize_all({"uncorrected": maps, "moved": maps}, objects, {"moved": (across, down)}, {})
        before, after = found["uncorrected"], found["moved"]
        height, width = images.shape[1:3]
        raw, moved = (
            _offset(upsampled(maps, height, width, shift), np.stack(objects), maps)
            for shift in ((0.0, 0.0), (across, down))
        )
        positions = f"{maps.shape[1]} × {maps.shape[2]}"
        print(
            f"| {Path(file).stem} | {outputs.method} | {positions} | {across:+.2f}, {down:+.2f} | {raw} | {moved} "
            f"| {before.pointing:.1%} | {after.pointing:.1%} "
            f"| {before.energy_inside:.1%} | {after.energy_inside:.1%} |",
            flush=True,
        )


def _offset(large: np.ndarray, masks: np.ndarray, maps: np.ndarray) -> str:
    between = (_center(np.maximum(large, 0)) - _center(masks.astype(float))) * maps.shape[1:] / large.shape[1:]
    down, across = np.nanmean(between, axis=0)
    return f"{across:+.2f}, {down:+.2f}"


def _center(weights: np.ndarray) -> np.ndarray:
    """Compute the center of mass in pixels, down and across, `[N, 2]`."""
    total = weights.sum(axis=(1, 2))
    sides = ((weights.sum(axis=3 - axis) * np.arange(weights.shape[axis])).sum(axis=1) for axis in (1, 2))
    return np.stack([side / total for side in sides], axis=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
