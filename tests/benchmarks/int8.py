"""Measure speedup and fidelity of a precision with map: one thread, against the fp32 file of the same model.

```
python tests/benchmarks/int8.py PHOTOS                      # a folder of photos, or a zip of one
python tests/benchmarks/int8.py PHOTOS --weights WEIGHTS --models tf_efficientnet_lite0 resnet50
python tests/benchmarks/int8.py PHOTOS --precisions int8 fp16 --keep FILES   # writes the model files to FILES
```

Prints one JSON line per model and precision: `fp32_ms` and `own_ms`, medians of alternating runs; `ratio`, the median
of their quotients; `agreement` and `map_pearson` of the file with fp32 on the validation split of the photos, which is
not used for quantization.

WEIGHTS holds `NAME.safetensors` (or `NAME_torchvision.safetensors`). Other models get random weights with normalization
statistics of photos: their latencies are valid, and their other figures are null. The profile is an x86 core with VNNI
unless another is given.
"""

import argparse
import json
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
for folder in (ROOT, ROOT / "export", ROOT / "runtime"):
    sys.path.insert(0, str(folder))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from kdedge.data import decode, index_dataset  # noqa: E402
from kdedge.models.trained_model import load_trained  # noqa: E402
from kdedge.pipelines.model_export import export_model  # noqa: E402
from kdedge_export.file_quantization import QuantizedFile  # noqa: E402
from kdedge_export.metrics.agreement import agreement  # noqa: E402
from kdedge_export.metrics.map_similarity import map_pearson  # noqa: E402
from kdedge_export.metrics.torch_predictions import predict  # noqa: E402
from kdedge_export.quantization import RECIPES  # noqa: E402
from kdedge_runtime import Model  # noqa: E402
from kdedge_runtime.devices import load_profile  # noqa: E402
from kdedge_runtime.modalities.image import require_image  # noqa: E402

MODELS = {
    "resnet18": "torchvision:resnet18",
    "resnet50": "torchvision:resnet50",
    "mobilenet_v2": "torchvision:mobilenet_v2",
    "tf_efficientnet_lite0": "timm:tf_efficientnet_lite0",
    "mobilenet_v3_small": "torchvision:mobilenet_v3_small",
    "efficientnet_b0": "torchvision:efficientnet_b0",
}
STUDENTS = {"resnet10w16": "small:resnet10w16", "resnet8": "small:resnet8"}
SETTLED_ON = 24
"""Number of photos for normalization statistics with random weights."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights", type=Path, default=ROOT / "weights")
    parser.add_argument("--models", nargs="+", choices=MODELS | STUDENTS, default=list(MODELS))
    parser.add_argument("--precisions", nargs="+", choices=RECIPES, default=["int8"])
    parser.add_argument("--device", default="laptop-x86-vnni")
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--keep", type=Path, metavar="FILES", help="folder for the model files [default: temporary]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, photos = options.keep or Path(name), options.photos
        folder.mkdir(parents=True, exist_ok=True)
        if photos.suffix == ".zip":
            with zipfile.ZipFile(photos) as archive:
                archive.extractall(Path(name, "photos"))
            photos = Path(name, "photos")
        for model in options.models:
            for line in measured(model, photos, options, folder):
                print(json.dumps(line), flush=True)


def measured(model: str, photos: Path, options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    source = (MODELS | STUDENTS)[model]
    candidates = (options.weights / f"{model}.safetensors", options.weights / f"{model}_torchvision.safetensors")
    weights = next((path for path in candidates if path.is_file()), None)
    known = weights is not None
    weights = weights or random_weights(source, photos, folder / f"{model}.safetensors")
    started = time.monotonic()
    result = export_model(
        source,
        weights=weights,
        output=folder / f"{model}.onnx",
        precisions=options.precisions,
        data=str(photos),
        profile=load_profile(options.device),
    )
    seconds = time.monotonic() - started
    fp32 = Model.load(result.fp32, threads=1)
    images = decode(index_dataset(photos, unlabeled_ok=True).val, fp32.metadata.input).samples
    for name, file in result.quantized.items():
        assert file.path is not None
        line = {"model": model, "precision": name} | compared(fp32, file, images, known, options.runs)
        yield line | {"export_s": round(seconds, 1)}


def compared(fp32: Model, file: QuantizedFile, images: np.ndarray, known: bool, runs: int) -> dict[str, Any]:
    """Return size, latency and, with known weights, fidelity of a file."""
    assert file.path is not None
    own = Model.load(file.path, threads=1)
    times = np.array([timed(images[:1], fp32, own) for _ in range(runs + 5)])[5:]
    line: dict[str, Any] = {
        "weights": known,
        "fp32_ms": round(float(np.median(times[:, 0])), 3),
        "own_ms": round(float(np.median(times[:, 1])), 3),
        "ratio": round(float(np.median(times[:, 0] / times[:, 1])), 3),
        "fp32_mb": round(fp32.path.stat().st_size / 1e6, 2),
        "own_mb": round(own.path.stat().st_size / 1e6, 2),
        "agreement": None,
        "map_pearson": None,
        "map_pearson_p5": None,
        "images": len(images),
        "calibration": file.note.get("calibration"),
        "machine": file.note["latency_ms"]["machine"],
    }
    if known:
        exact = predict(fp32, images)
        coarse = predict(own, images, exact.explained_class)
        assert exact.maps is not None and coarse.maps is not None
        scores = map_pearson(exact.maps, coarse.maps)
        line["agreement"] = round(agreement(exact.logits, coarse.logits), 4)
        line["map_pearson"] = round(float(np.nanmean(scores)), 4)
        line["map_pearson_p5"] = round(float(np.nanpercentile(scores, 5)), 4)
    return line


def timed(image: np.ndarray, *models: Model) -> list[float]:
    """Measure the latency of each model in ms, one after the other."""
    taken = []
    for model in models:
        started = time.perf_counter()
        model.predict(image)
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def random_weights(source: str, photos: Path, path: Path) -> Path:
    """Write random weights with activations as large as trained ones; otherwise gates neither open nor close."""
    torch.manual_seed(0)
    trained = load_trained(source, pretrained=False)
    spec = require_image(trained.input, source)
    split = index_dataset(photos, unlabeled_ok=True).train
    images = decode(split.take(range(min(SETTLED_ON, len(split)))), spec).samples
    x = (torch.from_numpy(images).float() / 255 - torch.tensor(spec.mean)) / torch.tensor(spec.std)
    for module in trained.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
            nn.init.uniform_(module.weight, 0.7, 1.5)
            nn.init.normal_(module.bias, 0, 0.5)
    trained.model.train()
    with torch.no_grad():
        trained.model(x.permute(0, 3, 1, 2))
    save_file({name: value.contiguous() for name, value in trained.model.state_dict().items()}, path)
    return path


if __name__ == "__main__":
    main()
