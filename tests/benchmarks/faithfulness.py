"""Measure the faithfulness of each saliency method for each type of head.

    python tests/benchmarks/faithfulness.py MODEL DATA [--weights FILE] [--name NAME] [--images N] [--json FILE]

MODEL is a run folder or a model name, DATA a folder of images, of which `val/` is used if it exists. Prints one row per
method, and writes one JSON line per method. Every map explains the model's own prediction. The metrics are

- insertion and deletion (Petsiuk et al., BMVC 2018), their difference, and that difference paired against Grad-CAM;
- the mean Pearson correlation with an occlusion map of the logit (Zeiler and Fergus, ECCV 2014) at the map's size;
- the fraction of images in which masking the most salient quarter of positions reduces the logit more than masking
  random positions (mean of four draws).

Random maps, edges (Adebayo et al., NeurIPS 2018) and the occlusion map itself are the baselines. Intervals are
bootstrapped over images, 95%.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from kdedge.models.code_trust import allow_content
from kdedge.models.trained_model import TrainedModel, load_trained
from kdedge_export.errors import GraphNotSupported, HeadNotSupported
from kdedge_export.metrics.baseline_maps import random_maps
from kdedge_export.metrics.comparison import maps_pearson
from kdedge_export.metrics.faithfulness import areas
from kdedge_export.metrics.resampling import area_mean
from kdedge_export.metrics.torch_predictions import predict
from kdedge_export.modalities.image import IMAGE, edge_maps
from kdedge_export.onnx_import.import_model import add_saliency
from kdedge_export.torch_export import ClassifierOnly, export_graph, save_model, wrap_for_export
from kdedge_runtime import Metadata, Model
from kdedge_runtime.explainers.masked_scorer import MaskedScorer
from kdedge_runtime.explainers.occlusion import occlusion
from kdedge_runtime.modalities.image import ImageInput, require_image
from kdedge_runtime.util.arrays import Floats, Integers, Pixels
from kdedge_runtime.util.files import file_sha256
from kdedge_runtime.util.images import image_files, read_image

METHODS = (
    *("gradcam", "hirescam", "layercam", "xgradcam", "gradcam++", "eigencam"),
    *("attention-rollout", "gradient-attention"),
)
_DRAWS = 4
_RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """Figures of one method on one model: means over images with confidence intervals."""

    model: str
    head: str
    method: str
    images: int
    map_size: tuple[int, int]
    deletion: float
    insertion: float
    difference: tuple[float, float, float]
    against_gradcam: tuple[float, float, float]
    occlusion_pearson: tuple[float, float, float]
    quarter: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    allow_content(file_sha256(Path(__file__).with_name("heads.py")))
    trained = load_trained(options.model, weights=options.weights)
    images = chosen_images(options.data, require_image(trained.input, options.model), options.images)
    print(
        f"{'method':12} {'insertion':>9} {'deletion':>8} {'difference':>22} {'against gradcam':>24} "
        f"{'occlusion r':>22} quarter"
    )
    for row in rows(options.name or options.model, trained, images):
        print(
            f"{row.method:12} {row.insertion:9.3f} {row.deletion:8.3f} {_interval(row.difference):>22} "
            f"{_interval(row.against_gradcam):>24} {_interval(row.occlusion_pearson):>22} {row.quarter:6.0%}",
            flush=True,
        )
        if options.json is not None:
            with options.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(vars(row)) + "\n")


def chosen_images(folder: Path, spec: ImageInput, count: int) -> Pixels:
    """Read up to `count` images at the model's input size, evenly spaced in the sorted files."""
    folder = folder / "val" if (folder / "val").is_dir() else folder
    files = image_files(folder)
    places = np.unique(np.linspace(0, len(files) - 1, count).round().astype(int))
    return np.stack([spec.preprocess(read_image(files[place])) for place in places])


def rows(name: str, trained: TrainedModel, images: Pixels) -> Iterator[Row]:
    """Measure every method that the model supports, and the baselines."""
    with tempfile.TemporaryDirectory() as folder:
        model, head = exported_model(trained, Path(folder) / "judge.onnx")
        logits = predict(model, images).logits
        classes = logits.argmax(axis=1)
        maps = dict(method_maps(trained, images, classes, Path(folder)))
        size = maps["gradcam"].shape[1:]
        occluded = np.stack([occlusion_map(model, *pair) for pair in zip(images, classes, strict=True)])
        maps |= {
            "occlusion": occluded,
            "random": random_maps(len(images), *size),
            "edges": area_mean(edge_maps(images), *size),
        }
        base = None
        for method, some in maps.items():
            pairs = np.array(
                [areas(model, *triple, IMAGE.smoothed) for triple in zip(images, some, classes, strict=True)]
            )
            difference = pairs[:, 1] - pairs[:, 0]
            base = difference if base is None else base
            pearson = maps_pearson(area_mean(occluded, *np.minimum(occluded.shape[1:], size)), some)
            yield Row(
                name,
                head,
                method,
                len(images),
                (int(some.shape[1]), int(some.shape[2])),
                float(pairs[:, 0].mean()),
                float(pairs[:, 1].mean()),
                bootstrap(difference),
                bootstrap(difference - base),
                bootstrap(pearson),
                float(quarter_test(model, images, some, classes, logits).mean()),
            )


def exported_model(trained: TrainedModel, path: Path) -> tuple[Model, str]:
    """Export the model with its default map; its probabilities are used to evaluate all maps."""
    deployed = wrap_for_export(trained.model, trained.input)
    save_model(export_graph(deployed).model, Metadata(trained.labels, trained.input, deployed.outputs), path)
    return Model.load(path), deployed.explained.head_description


def method_maps(trained: TrainedModel, images: Pixels, classes: Integers, folder: Path) -> Iterator[tuple[str, Floats]]:
    """Compute the maps of each method that is defined for the head."""
    for method in METHODS:
        try:
            found = predict(wrap_for_export(trained.model, trained.input, method), images, classes).maps
        except HeadNotSupported as error:
            print(f"{method}: {error}", file=sys.stderr)
            continue
        assert found is not None
        yield method, found
    plain, explained = folder / "plain.onnx", folder / "reciprocam.onnx"
    try:
        onnx.save(export_graph(ClassifierOnly(trained.model.eval(), trained.input)).model, plain)
        add_saliency(plain, explained, method="reciprocam")
    except (GraphNotSupported, HeadNotSupported) as error:
        print(f"reciprocam: {error}", file=sys.stderr)
        return
    found = predict(Model.load(explained), images, classes).maps
    assert found is not None
    yield "reciprocam", found


def occlusion_map(model: Model, image: Pixels, wanted: int) -> Floats:
    """Compute the drop of the logit when a square covers the image, float32 `[14, 14]`."""
    probe = MaskedScorer(lambda batch: model.predict(batch).logits[:, wanted], image, model.metadata.input)
    return occlusion(probe).map


def quarter_test(model: Model, images: Pixels, maps: Floats, classes: Integers, logits: Floats) -> NDArray[np.bool_]:
    """Compare the logit drop without the most salient quarter with its mean over random quarters, bool `[N]`."""
    rng = np.random.default_rng(0)
    positions = maps.shape[1] * maps.shape[2]
    mean = np.rint(255 * np.array(require_image(model.metadata.input, model.path).mean)).astype(np.uint8)
    won = []
    for image, saliency_map, wanted, before in zip(images, maps, classes, logits, strict=True):
        orders = [np.argsort(-saliency_map.ravel()), *(rng.permutation(positions) for _ in range(_DRAWS))]
        masks = np.zeros((len(orders), positions), np.float32)
        for mask, order in zip(masks, orders, strict=True):
            mask[order[: positions // 4]] = 1
        covered = nearest(masks.reshape(-1, *maps.shape[1:]), *image.shape[:2])
        painted = np.where(covered[..., None], mean, image[None])
        lost = before[wanted] - model.predict(painted).logits[:, wanted]
        won.append(lost[0] > lost[1:].mean())
    return np.array(won)


def nearest(masks: Floats, height: int, width: int) -> NDArray[np.bool_]:
    """Upsample masks `[n, h, w]` to bool `[n, height, width]` by nearest neighbor."""
    rows, columns = (
        np.arange(side) * positions // side for side, positions in zip((height, width), masks.shape[1:], strict=True)
    )
    return np.asarray(masks[:, rows][:, :, columns] > 0)


def bootstrap(scores: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the mean of the defined scores with its 95% percentile bootstrap interval."""
    defined = scores[~np.isnan(scores)]
    if not len(defined):
        return (float("nan"),) * 3
    draws = np.random.default_rng(0).integers(0, len(defined), (_RESAMPLES, len(defined)))
    low, high = np.quantile(defined[draws].mean(axis=1), [0.025, 0.975])
    return float(defined.mean()), float(low), float(high)


def _interval(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
