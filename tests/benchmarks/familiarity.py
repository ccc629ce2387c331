"""Measure how well scores in the graph tell known classes from unfamiliar images, by AUROC.

```
OMP_NUM_THREADS=1 python tests/benchmarks/familiarity.py GTSRB22 TINY20 --photos PHOTOS \\
    --weights tf_efficientnet_lite0.safetensors
```

GTSRB22 and TINY20 are the folders of `gtsrb22.py` and `tiny_imagenet_20.py`, PHOTOS is the folder of
`sample_photos.py`. Each fifth of the classes of a dataset is left out in turn: class i belongs to part i modulo five.
Two networks are measured. `lite0` has frozen pooled features of EfficientNet-Lite0 at 224 px (mean and standard
deviation 0.5), and a head by logistic regression on the remaining classes. `student` is a small network that is
trained from random weights on the remaining classes.

Each score is fitted on the training samples of the remaining classes. Its AUROC is the probability that a validation
sample of these classes scores above an unfamiliar sample. Unfamiliar are the validation samples of the left-out
classes, those of the other dataset, the photos, and drawn textures and noise. Features are cached in --cache.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from kdedge_export.familiarity.discriminant import fit_discriminant
from kdedge_export.metrics.auroc import auroc

Array: TypeAlias = np.ndarray[Any, Any]

PARTS = 5
TEXTURES = 400
"""Number of drawn textures and noise."""
TRAIN_PER_CLASS = 150
"""Largest number of training samples of a class for the frozen features."""
MEMORY = 1000
"""Number of training samples that k-NN keeps."""
GROUPS = ("left-out classes", "other dataset", "photos", "textures")


@dataclass(frozen=True)
class Space:
    """Features of the known training samples with the head on them."""

    features: Array
    """Pooled features `[N, D]`."""
    targets: Array
    weight: Array
    """Matrix `[K, D]` of the head."""
    bias: Array

    def logits(self, features: Array) -> Array:
        return np.asarray(features @ self.weight.T + self.bias)

    @property
    def means(self) -> Array:
        return np.stack([self.features[self.targets == each].mean(axis=0) for each in range(len(self.weight))])


Score: TypeAlias = Callable[[Array], Array]
"""Function of features `[N, D]` to scores `[N]`; larger is more familiar."""


def max_softmax(space: Space) -> Score:
    return lambda x: softmax(space.logits(x)).max(axis=1)


def max_logit(space: Space) -> Score:
    return lambda x: space.logits(x).max(axis=1)


def energy(space: Space) -> Score:
    """Energy (Liu et al., NeurIPS 2020)."""
    return lambda x: logsumexp(space.logits(x))


def cosine(space: Space) -> Score:
    means = unit(space.means)
    return lambda x: (unit(x) @ means.T).max(axis=1)


def centered_cosine(space: Space) -> Score:
    center = space.features.mean(axis=0)
    means = unit(space.means - center)
    return lambda x: (unit(x - center) @ means.T).max(axis=1)


def mahalanobis(space: Space, shrinkage: float = 0.1) -> Score:
    """Mahalanobis distance with tied covariance (Lee et al., NeurIPS 2018)."""
    means = space.means
    whiten = whitening(space.features - means[space.targets], shrinkage)
    return lambda x: -distances(x @ whiten, means @ whiten).min(axis=1)


def normalized_mahalanobis(space: Space, shrinkage: float = 0.1) -> Score:
    """Mahalanobis distance of features of unit length (Müller and Hein, ICML 2025)."""
    inner = mahalanobis(Space(unit(space.features), space.targets, space.weight, space.bias), shrinkage)
    return lambda x: inner(unit(x))


def relative_mahalanobis(space: Space, shrinkage: float = 0.1) -> Score:
    """Mahalanobis distance minus that of one Gaussian for all classes (Ren et al., 2021)."""
    inner, center = mahalanobis(space, shrinkage), space.features.mean(axis=0)
    whiten = whitening(space.features - center, shrinkage)
    return lambda x: inner(x) + distances(x @ whiten, center[None] @ whiten)[:, 0]


def low_rank_mahalanobis(space: Space, rank: int = 32, normalize: bool = False) -> Score:
    """Mahalanobis distance whose covariance is `rank` principal axes and one variance for the others."""
    features = unit(space.features) if normalize else space.features
    means = np.stack([features[space.targets == each].mean(axis=0) for each in range(len(space.weight))])
    axes, gains, variance = principal_axes(features - means[space.targets], rank)
    scale = np.sqrt(gains)

    def score(x: Array) -> Array:
        x = unit(x) if normalize else x
        near = distances(x, means) / variance + distances(x @ axes * scale, means @ axes * scale, signed=True)
        return np.asarray(-near.min(axis=1))

    return score


def nearest_neighbor(space: Space, count: int = 10) -> Score:
    """Cosine to the k-th nearest of a small memory (Sun et al., ICML 2022)."""
    chosen = np.random.default_rng(0).permutation(len(space.features))[:MEMORY]
    memory = unit(space.features[chosen])
    return lambda x: np.sort(unit(x) @ memory.T, axis=1)[:, -count]


def residual(space: Space) -> Score:
    """Length outside the principal subspace of the training features (of ViM)."""
    origin, outside, _ = vim_parts(space)
    return lambda x: -np.linalg.norm((x - origin) @ outside, axis=1)


def discriminant_cosine(space: Space) -> Score:
    """Score of exported files, see `kdedge_export.familiarity.discriminant`."""
    fitted = fit_discriminant(space.features, space.targets)
    assert fitted is not None
    return fitted.score


def vim(space: Space) -> Score:
    """Energy minus the scaled residual (Wang et al., CVPR 2022)."""
    origin, outside, alpha = vim_parts(space)
    return lambda x: logsumexp(space.logits(x)) - alpha * np.linalg.norm((x - origin) @ outside, axis=1)


SCORES: dict[str, Callable[[Space], Score]] = {
    "max softmax": max_softmax,
    "max logit": max_logit,
    "energy": energy,
    "cosine": cosine,
    "centered cosine": centered_cosine,
    "Mahalanobis": mahalanobis,
    "Mahalanobis, normalized": normalized_mahalanobis,
    "Mahalanobis, relative": relative_mahalanobis,
    "Mahalanobis, rank 32": low_rank_mahalanobis,
    "Mahalanobis, rank 32, normalized": lambda space: low_rank_mahalanobis(space, normalize=True),
    "discriminant cosine": discriminant_cosine,
    "k-NN": nearest_neighbor,
    "residual": residual,
    "ViM": vim,
}


def softmax(logits: Array) -> Array:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def logsumexp(logits: Array) -> Array:
    top = logits.max(axis=1)
    return np.asarray(top + np.log(np.exp(logits - top[:, None]).sum(axis=1)))


def unit(x: Array) -> Array:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


def distances(x: Array, means: Array, signed: bool = False) -> Array:
    squared = np.asarray((x**2).sum(axis=1)[:, None] - 2 * x @ means.T + (means**2).sum(axis=1))
    return squared if signed else np.maximum(squared, 0)


def whitening(centered: Array, shrinkage: float) -> Array:
    covariance = centered.T @ centered / len(centered)
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, axes = np.linalg.eigh(shrunk)
    return np.asarray(axes / np.sqrt(np.maximum(values, 1e-12)))


def principal_axes(centered: Array, rank: int) -> tuple[Array, Array, float]:
    """Return axes `[D, r]`, the difference of their precision to the others' `[r]`, and the others' variance."""
    values, axes = np.linalg.eigh(centered.T @ centered / len(centered))
    rank = min(rank, len(values) // 2)
    variance = float(values[:-rank].mean())
    return axes[:, -rank:], 1 / variance - 1 / values[-rank:], variance


def vim_parts(space: Space) -> tuple[Array, Array, float]:
    size = space.features.shape[1]
    origin = -np.linalg.pinv(space.weight) @ space.bias
    _, axes = np.linalg.eigh((space.features - origin).T @ (space.features - origin))
    outside = axes[:, : size - min(512, size // 2)]
    norms = np.linalg.norm((space.features - origin) @ outside, axis=1)
    return origin, outside, float(space.logits(space.features).max(axis=1).mean() / norms.mean())


@dataclass(frozen=True)
class Samples:
    """Samples of a dataset: files with their classes."""

    files: tuple[Path, ...]
    targets: Array

    def of(self, classes: Array) -> "Samples":
        chosen = np.flatnonzero(np.isin(self.targets, classes))
        return Samples(tuple(self.files[at] for at in chosen), self.targets[chosen])


def listed(data: Path, split: str, most: int | None = None) -> Samples:
    classes = sorted(path.name for path in (data / "train").iterdir())
    pairs = [
        (file, number)
        for number, name in enumerate(classes)
        for file in sorted((data / split / name).iterdir())[slice(most)]
    ]
    return Samples(tuple(file for file, _ in pairs), np.array([number for _, number in pairs]))


Extract: TypeAlias = Callable[[Array], Array]
"""Function of images uint8 `[N, H, W, 3]` to pooled features `[N, D]`."""


def read(files: tuple[Path, ...], side: int) -> Array:
    from kdedge_runtime.modalities.image import ImageInput
    from kdedge_runtime.util.images import read_image

    spec = ImageInput(side, side, (0, 0, 0), (1, 1, 1))
    return np.stack([spec.preprocess(read_image(file)) for file in files])


def textures(side: int) -> Array:
    from kdedge_export.scenes.textures import render_textures

    return render_textures(np.random.default_rng(0), TEXTURES, side, side)


def pooled(model: Any, mean: tuple[float, ...], std: tuple[float, ...], last: str) -> Extract:
    """Return the inputs of the last dense layer of a network."""
    import torch

    kept: list[Any] = []
    model.get_submodule(last).register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    model.eval()
    shift, scale = torch.tensor(mean)[:, None, None] * 255, torch.tensor(std)[:, None, None] * 255

    def extract(images: Array) -> Array:
        with torch.inference_mode():
            for at in range(0, len(images), 32):
                model((torch.from_numpy(images[at : at + 32]).permute(0, 3, 1, 2) - shift) / scale)
        result = torch.cat(kept).numpy().astype(np.float64)
        kept.clear()
        return np.asarray(result)

    return extract


def cached(path: Path, make: Callable[[], Array]) -> Array:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, make())
    return np.asarray(np.load(path))


def lite0(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure frozen features with a logistic regression on them."""
    import timm
    from safetensors.torch import load_file
    from sklearn.linear_model import LogisticRegression

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    network.load_state_dict(load_file(options.weights))
    extract, side = pooled(network, (0.5,) * 3, (0.5,) * 3, "classifier"), 224
    folder = options.cache / "lite0"

    def features(name: str, files: tuple[Path, ...]) -> Array:
        def make() -> Array:
            parts = [extract(read(files[at : at + 256], side)) for at in range(0, len(files), 256)]
            return np.concatenate(parts).astype(np.float32)

        return cached(folder / f"{name}.npy", make)

    drawn = cached(folder / "textures.npy", lambda: extract(textures(side)).astype(np.float32))
    photos = features("photos", tuple(sorted(options.photos.glob("*.jpg"))))
    train = {data: listed(data, "train", TRAIN_PER_CLASS) for data in options.data}
    val = {data: listed(data, "val") for data in options.data}
    train_x = {data: features(f"{data.name}-train", train[data].files) for data in options.data}
    val_x = {data: features(f"{data.name}-val", val[data].files) for data in options.data}
    rows = []
    for data in options.data:
        other = np.concatenate([val_x[each] for each in options.data if each != data])
        for part in range(PARTS):
            known = remaining(train[data], part)
            inside = np.isin(train[data].targets, known)
            x, y = train_x[data][inside], np.searchsorted(known, train[data].targets[inside])
            head = LogisticRegression(C=1.0, max_iter=300).fit(x / x.std(), y)
            space = Space(x, y, head.coef_ / x.std(), head.intercept_)
            held = np.isin(val[data].targets, known)
            groups = dict(zip(GROUPS, (val_x[data][~held], other, photos, drawn), strict=True))
            row = {"network": "lite0", "data": data.name, "part": part}
            truth = np.searchsorted(known, val[data].targets[held])
            rows.append(row | measured(space, val_x[data][held], truth, groups))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def student(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure a network trained from random weights without each part of the classes."""
    from kdedge.models.trained_model import load_trained

    rows = []
    for data in options.data:
        train, val = listed(data, "train", options.samples_per_class), listed(data, "val")
        classes = sorted(path.name for path in (data / "train").iterdir())
        for part in range(PARTS):
            known = remaining(train, part)
            left_out = [name for number, name in enumerate(classes) if number not in known]
            name = f"{options.student.replace(':', '-')}-{options.samples_per_class}-{data.name}-{part}"
            run = options.cache / name
            train_student(options, data, left_out, run)
            loaded = load_trained(str(run))
            spec: Any = loaded.input
            last = [name for name, module in loaded.model.named_modules() if hasattr(module, "out_features")][-1]
            head = loaded.model.get_submodule(last)
            extract = pooled(loaded.model, spec.mean, spec.std, last)

            def features(files: tuple[Path, ...], extract: Extract = extract, side: int = spec.height) -> Array:
                parts = [extract(read(files[at : at + 256], side)) for at in range(0, len(files), 256)]
                return np.concatenate(parts)

            inner, held = train.of(known), val.of(known)
            weight, bias = (getattr(head, name).detach().numpy().astype(np.float64) for name in ("weight", "bias"))
            targets = np.searchsorted(known, inner.targets)
            space = Space(features(inner.files), targets, weight, bias)
            others = tuple(file for each in options.data if each != data for file in listed(each, "val").files)
            outside = val.of(np.setdiff1d(np.arange(len(classes)), known))
            photos = features(tuple(sorted(options.photos.glob("*.jpg"))))
            drawn = extract(textures(spec.height))
            groups = dict(zip(GROUPS, (features(outside.files), features(others), photos, drawn), strict=True))
            row = {"network": options.student, "data": data.name, "part": part}
            truth = np.searchsorted(known, held.targets)
            rows.append(row | measured(space, features(held.files), truth, groups))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def train_student(options: argparse.Namespace, data: Path, left_out: list[str], run: Path) -> None:
    if (run / "run.json").is_file() and json.loads((run / "run.json").read_text())["result"]:
        return
    arguments = ["train", str(data), "--model", options.student, "--out", str(run)]
    arguments += [part for name in left_out for part in ("--leave-out", name)]
    arguments += ["--size", str(options.size), "--epochs", str(options.epochs), "--no-flip"]
    arguments += ["--samples-per-class", str(options.samples_per_class)]
    command = [sys.executable, "-c", "from kdedge.cli import main; main()", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def remaining(samples: Samples, part: int) -> Array:
    """Return the classes that are not left out."""
    classes = np.unique(samples.targets)
    return np.asarray(classes[classes % PARTS != part])


def measured(space: Space, known: Array, truth: Array, groups: dict[str, Array]) -> dict[str, Any]:
    result: dict[str, Any] = {"accuracy": float((space.logits(known).argmax(axis=1) == truth).mean())}
    for name, fit in SCORES.items():
        score = fit(space)
        familiar = score(known)
        result[name] = {group: auroc(familiar, score(x)) for group, x in groups.items()}
    return result


def table(rows: list[dict[str, Any]]) -> str:
    """Format the mean AUROC over the parts as Markdown, in percent."""
    kinds = list(dict.fromkeys((row["network"], row["data"]) for row in rows))
    lines = ["| score | " + " | ".join(f"{network}, {data}" for network, data in kinds) + " | mean |"]
    lines.append("|---" * (len(kinds) + 2) + "|")
    for group in GROUPS:
        lines.append(f"| **{group}** |" + " |" * (len(kinds) + 1))
        for name in SCORES:
            means = [
                100 * np.mean([row[name][group] for row in rows if (row["network"], row["data"]) == kind])
                for kind in kinds
            ]
            lines.append(f"| {name} | " + " | ".join(f"{mean:.1f}" for mean in (*means, np.mean(means))) + " |")
    return "\n".join(lines)


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="weights of tf_efficientnet_lite0; default: only the student")
    parser.add_argument("--student", default="small:resnet8")
    parser.add_argument("--size", type=int, default=32, help="input size of the student in pixels")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples-per-class", type=int, default=150, help="training images of the student per class")
    parser.add_argument("--cache", type=Path, default=Path("runs/familiarity"))
    return parser.parse_args(arguments)


def main() -> None:
    options = read_options()
    start = time.perf_counter()
    rows = (lite0(options) if options.weights else []) + (student(options) if options.student else [])
    print(table(rows))
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
