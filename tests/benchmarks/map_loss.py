"""Vary the term `mapall`: its weight, the number of compared classes, and the effect of mixed images.

```
python tests/benchmarks/map_loss.py gtsrb22            # see gtsrb22.py for the data
python tests/benchmarks/map_loss.py gtsrb22 --mixed
```

No table reports the images used for evaluation here, so that a weight selected on them favors no table. They are split
from `gtsrb22/train`: tracks whose number ends in 3 or 8, linked into `runs/map_loss/data`. `gtsrb22/val` is not read.

A resnet20 teaches a resnet8 with 20 images per class, at 32 px. Prints a table of the last epochs: mean ± standard
deviation over the seeds. Complete runs are not repeated.
"""

import argparse
import json
import statistics
from pathlib import Path

import quality

FIGURES = {
    "top-1 %": ("val_top1", 100, 1),
    "agreement %": ("val_agreement", 100, 1),
    "map Pearson": ("val_map_pearson", 1, 3),
}
"""Field of the run's record, scale factor and digits of each column."""
MIXED = "\n[augmentation]\ngeometry = 0.5\nerase = 0.25\nmixup = 1\ncutmix = 1\n"
"""Augmentation of the recipe few-images."""


def loss(weight: float, classes: int = 32) -> str:
    """Return the loss table of a recipe."""
    term = f"mapall = {{ weight = {weight}, classes = {classes} }}\n" if weight else ""
    return f"[loss]\nce = 0.1\nkd = 0.9\n{term}"


TERMS = {
    "KD": loss(0),
    **{f"KD + {weight}·mapall": loss(weight) for weight in (5, 20, 60, 200)},
    **{f"KD + 20·mapall of {classes} class{'es' * (classes > 1)}": loss(20, classes) for classes in (1, 4)},
}
MIXTURES = {
    "KD": loss(0),
    "KD + mixed images": loss(0) + MIXED,
    "KD + 20·mapall": loss(20),
    "KD + 20·mapall + mixed images": loss(20) + MIXED,
}


def split(source: Path, data: Path) -> None:
    """Link the training images into two splits by track."""
    for file in sorted((source / "train").rglob("*.webp")):
        side = "val" if int(file.name[:5]) % 10 in (3, 8) else "train"
        link = data / side / file.parent.name / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(file.resolve())


def positions(results: list[dict[str, float]]) -> list[str]:
    """Format mean ± standard deviation of each figure."""
    made = []
    for field, factor, digits in FIGURES.values():
        values = [factor * result[field] for result in results]
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        made.append(f"{statistics.mean(values):.{digits}f}{spread}")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--mixed", action="store_true", help="compare with and without mixed images, for more epochs")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/map_loss"))
    options = parser.parse_args()
    epochs, recipes = (100, MIXTURES) if options.mixed else (50, TERMS)
    data, teacher = options.out / "data", options.out / "teacher"
    split(options.data, data)
    common = (str(data), "--no-flip", "--size", "32")
    quality.kdedge("train", *common, "--model", "resnet20", "--epochs", "20", "--out", str(teacher))
    results: dict[str, list[dict[str, float]]] = {name: [] for name in recipes}
    for seed in range(options.seeds):
        for name, text in recipes.items():
            run = options.out / f"{name} {epochs} {seed}".replace(" ", "_")
            recipe = run.with_suffix(".toml")
            recipe.write_text(text)
            few = ("--student", "resnet8", "--samples-per-class", "20", "--epochs", str(epochs), "--seed", str(seed))
            cache = () if options.mixed else ("--cache-teacher", "16")
            which = ("--teacher", str(teacher), "--recipe", str(recipe), "--out", str(run))
            quality.kdedge("distill", *common, *few, *cache, *which)
            results[name].append(json.loads((run / "run.json").read_text())["result"]["last"])
            print(f"{name}, seed {seed}: {' · '.join(positions(results[name][-1:]))}", flush=True)
    print(f"\n| loss | {' | '.join(FIGURES)} |\n{'|---' * (1 + len(FIGURES))}|")
    for name, found in results.items():
        print(f"| {name} | {' | '.join(positions(found))} |")


if __name__ == "__main__":
    main()
