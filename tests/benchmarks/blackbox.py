"""Benchmark black-box explainers: cost, and agreement with the model's own map.

```
python tests/benchmarks/blackbox.py MODEL.onnx PICTURES [--budget-ms MS] [--images 10]
```

Explains the top class of each image with every method. Prints one JSON line per method: evaluations and milliseconds
per image, the method's standard error as a fraction of its peak, Pearson correlation with the file's map (at its
resolution; null without a map), deletion (mean probability while pixels are hidden in the order of the map, in tenths;
lower is better) and insertion (while they are revealed; higher is better). Figures are medians over the images;
deletion and insertion are means. The line `file` is the file's own map, `random` the chance level. Random parts in the
model's mean color disrupt an image, so chance has a good deletion and a bad insertion score: compare both.
"""

import argparse
import json
import statistics
from pathlib import Path

import numpy as np

from kdedge_runtime import Model
from kdedge_runtime.explainers import make_explainer, methods_for
from kdedge_runtime.explainers.image_grid import enlarge, grid_edges, grid_means
from kdedge_runtime.explainers.registry import EXPLAINERS
from kdedge_runtime.modalities.image import require_image
from kdedge_runtime.util.images import image_files, read_image

STEPS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", nargs="+", choices=EXPLAINERS)
    parser.add_argument("--images", type=int, default=10, help="number of images, evenly spread over the folder")
    parser.add_argument("--budget-ms", type=float)
    parser.add_argument("--segments", type=int)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    model = Model.load(options.model, threads=options.threads)
    files = image_files(options.folder)
    pictures = [
        model.metadata.input.preprocess(read_image(path))
        for path in files[:: max(1, len(files) // options.images)][: options.images]
    ]
    methods = options.methods or methods_for(model)
    predictions = [model.predict(picture[None]) for picture in pictures]
    tops = [int(prediction.scores[0].argmax()) for prediction in predictions]
    own = [prediction.saliency_map[0] for prediction in predictions if prediction.saliency_map is not None]
    rng = np.random.default_rng(0)
    ready_made = {"random": [rng.random((14, 14)).astype(np.float32) for _ in pictures]}
    if model.has_map:
        ready_made["file"] = own
    for name, maps in ready_made.items():
        areas = [faithfulness(model, *case) for case in zip(pictures, tops, maps, strict=True)]
        print(json.dumps({"method": name, "pictures": len(pictures), **means(areas)}), flush=True)
    for method in methods:
        segments = options.segments if EXPLAINERS[method].takes == "segments" else None
        explain = make_explainer(model, method, budget_ms=options.budget_ms, segments=segments)
        estimates = [explain(picture, top) for picture, top in zip(pictures, tops, strict=True)]
        maps = [estimate.map for estimate in estimates]
        areas = [faithfulness(model, *case) for case in zip(pictures, tops, maps, strict=True)]
        line = {
            "method": method,
            "pictures": len(pictures),
            "evaluations": statistics.median(estimate.evaluations for estimate in estimates),
            "ms": round(statistics.median(estimate.elapsed_ms for estimate in estimates), 1),
            "relative_error": round(statistics.median(estimate.relative_error for estimate in estimates), 4),
            "pearson": None,
            **means(areas),
        }
        if model.has_map:
            agreement = [pearson(estimate.map, reference) for estimate, reference in zip(estimates, own, strict=True)]
            line["pearson"] = round(statistics.median(agreement), 3)
        print(json.dumps(line), flush=True)


def pearson(found: np.ndarray, reference: np.ndarray) -> float:
    """Compute the correlation at the reference's resolution."""
    side = 112
    rows, columns = (grid_edges(side, positions) for positions in reference.shape)
    positions = grid_means(enlarge(found[None], side, side), rows, columns)[0]
    return float(np.corrcoef(positions.ravel(), reference.ravel())[0, 1])


def faithfulness(model: Model, picture: np.ndarray, top: int, found: np.ndarray) -> tuple[float, float]:
    """Compute the class's mean probability while pixels are hidden, and while they are revealed, most salient first."""
    heat = enlarge(found[None], *picture.shape[:2])[0]
    rank = (-heat).ravel().argsort(kind="stable").argsort().reshape(heat.shape) / heat.size
    hidden = np.rint(255 * np.array(require_image(model.metadata.input, model.path).mean)).astype(np.uint8)
    first = [(rank < step / STEPS)[..., None] for step in range(STEPS + 1)]
    deleted, inserted = (
        model.predict(np.stack([np.where(chosen, *pair) for chosen in first])).scores[:, top].mean()
        for pair in ((hidden, picture), (picture, hidden))
    )
    return float(deleted), float(inserted)


def means(areas: list[tuple[float, float]]) -> dict[str, float]:
    deletion, insertion = np.mean(areas, axis=0)
    return {"deletion": round(float(deletion), 4), "insertion": round(float(insertion), 4)}


if __name__ == "__main__":
    main()
