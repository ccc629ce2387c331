"""Measure distillation with maps on time series of the UCR and UEA archives, beside published baselines.

```
python tests/benchmarks/timeseries.py series --out series-runs
```

For every seed a teacher (`series:wide`) and four students (`series:small`) are trained on the archive's training cases,
a fifth of which select the epoch: alone, with KD, with KD + mapall, and the last one as an int8 file. These students
have the recipe `few-images`, so that they differ in their loss only. One more is trained like the teacher, without the
strong augmentation of that recipe. Figures are of the archive's test cases. `map Pearson`
compares maps of the teacher's top class. Intervals are 95% bootstrap intervals over test cases, after the mean over
seeds.

The folder has the `.ts` files of aeon 1.6, `GunPoint_TRAIN.ts` and so on. Baselines are those of the archive:
1-nearest-neighbor with dynamic time warping (Ratanamahatana and Keogh 2005; all channels share one warping path) and
MiniRocket (Dempster et al. 2021), as implemented in aeon.

GunPoint's classes differ in a known stretch. Ye and Keogh (Time Series Shapelets, KDD 2009, section 5) explain their
shapelet of 38 steps: without a gun, the hand that returns to the side overshoots, which is a dip; with a gun, it is put
into the holster first. Their search is repeated here on the training cases, with the published length. It does not use
any network. `evidence in the stretch` is the share of a map's positive values in the steps of that shapelet, for test
cases of the class Point, which has the dip. A uniform map has 38 / 150.

Prints one JSON line per dataset, and tables. Complete runs in --out are not repeated.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kdedge
from kdedge.models.run_folder import is_run
from kdedge_export.metrics.confidence import SHARE, mean_interval
from kdedge_export.metrics.map_similarity import map_pearson
from kdedge_runtime import Model
from kdedge_runtime.sources.timeseries.ts_file import TsFile, read_ts
from kdedge_runtime.util.arrays import Floats

DATASETS = ("BasicMotions", "GunPoint")
LOSSES = {"student alone": "ce:1", "KD": "ce:0.1,kd:0.9", "KD + mapall": "ce:0.1,kd:0.9,mapall:20"}
SHAPELET = 38
"""Length of the published shapelet in steps."""
POINT = 1
"""Class of GunPoint with the dip, named `2` in the archive."""
_DRAWS, _RUNS = 10_000, 300
Doubles = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with NAME_TRAIN.ts and NAME_TEST.ts")
    parser.add_argument("--out", type=Path, default=Path("series-runs"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS)
    options = parser.parse_args()
    for name in options.datasets:
        print_figures(name, measure(name, options))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one dataset by model."""
    train, test = (read_ts(options.data / f"{name}_{side}.ts") for side in ("TRAIN", "TEST"))
    files = [
        train_models(options.data / f"{name}_TRAIN.ts", options.out / name, seed, options.epochs)
        for seed in range(options.seeds)
    ]
    truth = np.array(test.targets)
    stretch = find_shapelet(train) if name == "GunPoint" else None
    if stretch is not None:
        stretch["accuracy"] = shapelet_accuracy(stretch, train, test)
    figures: dict[str, Any] = {"dataset": name, "cases": len(truth), "seeds": options.seeds, "models": {}}
    teachers = [predict(each["teacher"], test.values, None) for each in files]
    for model in files[0]:
        right, pearson, inside = [], [], []
        for seed, paths in enumerate(files):
            top = teachers[seed][0].argmax(axis=1)
            logits, maps = predict(paths[model], test.values, top)
            right.append(logits.argmax(axis=1) == truth)
            reference = predict(paths["teacher"], test.values, top)[1]
            pearson.append(map_pearson(reference, maps))
            if stretch is not None:
                of_point = predict(paths[model], test.values[truth == POINT], np.full((truth == POINT).sum(), POINT))[1]
                inside.append(share_inside(of_point, stretch["start"], test.values.shape[1]))
        figures["models"][model] = {
            "accuracy": accuracy_interval(np.mean(right, axis=0)),
            "accuracies": [float(each.mean()) for each in right],
            "pearson": interval(np.mean(pearson, axis=0)),
            "parameters": parameters(files[0][model]),
            "bytes": files[0][model].stat().st_size,
            "us": latency_us(files[0][model], test.values[:1]),
        }
        if inside:
            figures["models"][model]["inside"] = interval(np.mean(inside, axis=0))
    figures["baselines"] = {title: baseline(make, train, test) for title, make in baselines().items()}
    figures["stretch"] = stretch
    return figures


def train_models(data: Path, out: Path, seed: int, epochs: int) -> dict[str, Path]:
    """Train and export all models of one seed; return their files."""
    common: dict[str, Any] = {"seed": seed, "epochs": epochs, "device": "cpu"}
    teacher = out / f"teacher-{seed}"
    if not is_run(teacher):
        kdedge.train(data, "series:wide", output=teacher, **common)
    plain = out / f"student-as-teacher-{seed}"
    if not is_run(plain):
        kdedge.train(data, "series:small", output=plain, **common)
    files = {"teacher": exported(teacher), "student trained as the teacher": exported(plain)}
    for title, loss in LOSSES.items():
        run = out / f"{title.replace(' + ', '-').replace(' ', '-')}-{seed}"
        if not is_run(run):
            kdedge.distill(data, teacher, "series:small", output=run, recipe="few-images", loss=loss, **common)
        files[title] = exported(run)
    return files | {"KD + mapall, int8": exported(run, "model.int8.onnx")}


def exported(run: Path, name: str = "model.onnx") -> Path:
    if not (run / name).is_file():
        kdedge.export(run, precisions=["int8"])
    return run / name


def predict(file: Path, values: Floats, classes: NDArray[np.int64] | None) -> tuple[Floats, Floats]:
    """Return the logits `[N, K]` and the maps `[N, C, w]` of given classes, or of the top class."""
    model = Model.load(file, threads=1)
    outputs = [
        model.predict(case[None], None if classes is None else int(classes[at])) for at, case in enumerate(values)
    ]
    maps = [each.saliency_map for each in outputs]
    return np.concatenate([each.logits for each in outputs]), np.concatenate(
        [each for each in maps if each is not None]
    )


def interval(per_case: Doubles) -> dict[str, float]:
    """Return the mean over cases with a 95% bootstrap interval; undefined values are left out."""
    values = per_case[np.isfinite(per_case)]
    drawn = np.random.default_rng(0).integers(0, len(values), (_DRAWS, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def accuracy_interval(right: Doubles) -> dict[str, float]:
    """Return the mean of shares of right answers with its 95% interval, which has a width if all are right."""
    found = mean_interval(right, SHARE)
    assert found is not None
    return {"mean": float(right.mean()), "low": found.low, "high": found.high}


def share_inside(maps: Floats, start: int, length: int) -> Doubles:
    """Return the share of positive evidence of each map in the stretch; positions cover even parts of the window."""
    evidence = np.maximum(maps.astype(np.float64), 0).sum(axis=1)
    edges = np.linspace(0, length, evidence.shape[1] + 1)
    overlap = np.clip(np.minimum(edges[1:], start + SHAPELET) - np.maximum(edges[:-1], start), 0, None) / np.diff(edges)
    with np.errstate(invalid="ignore"):  # undefined without positive evidence
        share: Doubles = evidence @ overlap / evidence.sum(axis=1)
    return share


def find_shapelet(train: TsFile) -> dict[str, Any]:
    """Search the subsequence whose distance divides the training cases best: information gain, then separation gap.

    `early_gain_bits` is the best gain of a subsequence in the first half of the window.
    """
    classes = np.array(train.targets)
    views = normalized_views(train)
    count, starts, _ = views.shape
    best, early = (-1.0, 0.0, 0.0, 0, 0), 0.0
    for case in range(count):
        distances = nearest(views[case], views)
        for start in range(starts):
            gain, gap, threshold = divide(distances[start], classes)
            best = max(best, (gain, gap, threshold, case, start))
            early = max(early, gain if start + SHAPELET <= train.values.shape[1] / 2 else 0.0)
    gain, gap, threshold, case, start = best
    figures = {"case": case, "start": start, "class": train.labels[int(classes[case])], "gain_bits": gain, "gap": gap}
    return figures | {"threshold": threshold, "early_gain_bits": early}


def shapelet_accuracy(found: Mapping[str, Any], train: TsFile, test: TsFile) -> float:
    """Return the accuracy of the shapelet alone: cases nearer than the threshold are of its class."""
    shapelet = normalized_views(train)[found["case"], found["start"]]
    is_near = nearest(shapelet[None], normalized_views(test))[0] < found["threshold"]
    of_class = np.array(test.targets) == test.labels.index(found["class"])
    return float((is_near == of_class).mean())


def normalized_views(content: TsFile) -> Doubles:
    """Return all subsequences of the first channel, standardized, `[N, starts, SHAPELET]`."""
    series = content.values[..., 0].astype(np.float64)
    views = np.lib.stride_tricks.sliding_window_view(series, SHAPELET, axis=1)
    standardized: Doubles = (views - views.mean(axis=-1, keepdims=True)) / views.std(axis=-1, keepdims=True)
    return standardized


def nearest(shapelets: Doubles, views: Doubles) -> Doubles:
    """Return the distance of every shapelet to the nearest subsequence of every case, `[shapelets, N]`."""
    count, starts, _ = views.shape
    products = (shapelets @ views.reshape(-1, SHAPELET).T).reshape(len(shapelets), count, starts)
    distances: Doubles = np.sqrt(np.maximum(2 * SHAPELET - 2 * products, 0)).min(axis=2)
    return distances


def divide(distances: Doubles, classes: NDArray[np.int64]) -> tuple[float, float, float]:
    """Return the information gain of the best threshold in bits, rounded, the gap around it, and the threshold."""
    order = np.argsort(distances, kind="stable")
    ordered, values = classes[order], distances[order]
    left = np.arange(1, len(classes))
    ones = np.cumsum(ordered)[:-1]
    right = len(classes) - left
    remaining = left * entropy(ones / left) + right * entropy((classes.sum() - ones) / right)
    gains = np.round(entropy(classes.mean()) - remaining / len(classes), 9)
    at = int(gains.argmax())
    return float(gains[at]), float(values[at + 1] - values[at]), float((values[at] + values[at + 1]) / 2)


def entropy(share: Any) -> Any:
    share = np.clip(share, 1e-12, 1 - 1e-12)
    return -share * np.log2(share) - (1 - share) * np.log2(1 - share)


def baselines() -> Mapping[str, Callable[[], Any]]:
    from aeon.classification.convolution_based import MiniRocketClassifier
    from aeon.classification.distance_based import KNeighborsTimeSeriesClassifier

    return {
        "1-NN, DTW": lambda: KNeighborsTimeSeriesClassifier(n_neighbors=1, distance="dtw"),
        "MiniRocket": lambda: MiniRocketClassifier(random_state=0, n_jobs=1),
    }


def baseline(make: Callable[[], Any], train: TsFile, test: TsFile) -> dict[str, Any]:
    """Return the accuracy of a classifier of aeon on the test cases, and its time per case."""
    inputs, cases = (each.values.transpose(0, 2, 1).astype(np.float64) for each in (train, test))
    classifier = make()
    classifier.fit(inputs, np.array(train.targets))
    classifier.predict(cases[:2])  # compiles
    started = time.perf_counter()
    predicted = classifier.predict(cases)
    us = (time.perf_counter() - started) / len(cases) * 1e6
    return {"accuracy": accuracy_interval((predicted == np.array(test.targets)).astype(np.float64)), "us": us}


def parameters(file: Path) -> int:
    import onnx

    return sum(int(np.prod(each.dims)) for each in onnx.load(file).graph.initializer)


def latency_us(file: Path, case: Floats) -> float:
    """Return the median time of one window with its map in microseconds, on one thread."""
    model = Model.load(file, threads=1)
    laps = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        model.predict(case)
        laps.append(time.perf_counter() - started)
    return statistics.median(laps) * 1e6


def print_figures(name: str, figures: Mapping[str, Any]) -> None:
    print(json.dumps(figures))
    stretch = figures["stretch"]
    columns = ["model", "accuracy %", "by seed", "map Pearson", "µs"] + ["evidence in the stretch %"] * (
        stretch is not None
    )
    print(f"\n{name}: {figures['cases']} test cases, {figures['seeds']} seeds")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for title, each in figures["baselines"].items():
        row = [f"{title} (aeon)", shown(each["accuracy"], 100), "", "", f"{each['us']:.0f}"]
        print(f"| {' | '.join(row + [''] * (stretch is not None))} |")
    for title, each in figures["models"].items():
        seeds = sorted(100 * one for one in each["accuracies"])
        row = [title, shown(each["accuracy"], 100), f"{seeds[0]:.1f} to {seeds[-1]:.1f}", shown(each["pearson"], 1, 3)]
        row += [f"{each['us']:.0f}"] + ([shown(each["inside"], 100)] if stretch is not None else [])
        print(f"| {' | '.join(row)} |")
    if stretch is not None:
        steps = f"{stretch['start']} to {stretch['start'] + SHAPELET - 1}"
        print(f"\nStretch: steps {steps}, of training case {stretch['case']} of class {stretch['class']}.")
        print(f"A uniform map has {SHAPELET / 150:.1%} there.")
        print(f"Accuracy of the shapelet: {stretch['accuracy']:.1%}.")
        gains = f"{stretch['gain_bits']:.2f} bits, {stretch['early_gain_bits']:.2f} in the first half of the window"
        print(f"Information gain: {gains}.")


def shown(figure: Mapping[str, float], factor: float, digits: int = 1) -> str:
    mean, low, high = (f"{factor * figure[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    main()
