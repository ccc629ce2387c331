"""Convert Tiny-ImageNet to `tiny-imagenet-20`: every tenth of its 200 classes, in the official split.

```
unzip tiny-imagenet-200.zip                    # 248 MB, from http://cs231n.stanford.edu/tiny-imagenet-200.zip
python tests/benchmarks/tiny_imagenet_20.py tiny-imagenet-200 tiny-imagenet-20
```

writes `tiny-imagenet-20/train/WNID/*.JPEG` (10,000), `tiny-imagenet-20/val/WNID/*.JPEG` (1,000), `boxes.csv` and
`classes.json`. The JPEG files of 64 px are copied unchanged. The classes are listed here: the sorted `wnids.txt` in
steps of ten.
"""

import argparse
import csv
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

CLASSES = (
    *("n01443537", "n01784675", "n02002724", "n02123045", "n02231487", "n02410509", "n02669723", "n02814533"),
    *("n02909870", "n03026506", "n03255030", "n03584254", "n03770439", "n03937543", "n04070727", "n04259630"),
    *("n04398044", "n04532670", "n07615774", "n07871810"),
)
COUNTS = {"train": 10_000, "val": 1_000}


def annotated(source: Path) -> Iterator[tuple[str, str, Path, list[str]]]:
    """Yield split, class, file and box of each image, in the order of the annotations."""
    for wnid in CLASSES:
        folder = source / "train" / wnid
        for line in (folder / f"{wnid}_boxes.txt").read_text().splitlines():
            name, *box = line.split("\t")
            yield "train", wnid, folder / "images" / name, box
    for line in (source / "val" / "val_annotations.txt").read_text().splitlines():
        name, wnid, *box = line.split("\t")
        if wnid in CLASSES:
            yield "val", wnid, source / "val" / "images" / name, box


def make(source: Path, out: Path) -> Counter[str]:
    """Write the folders, the boxes and the names, and return the number of images per split."""
    names = dict(line.split("\t", 1) for line in (source / "words.txt").read_text().splitlines())
    count: Counter[str] = Counter()
    rows = [["file", "x1", "y1", "x2", "y2"]]
    for side, wnid, file, box in annotated(source):
        copy = f"{side}/{wnid}/{file.name}"
        (out / copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, out / copy)
        rows.append([copy, *box])
        count[side] += 1
    with (out / "boxes.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    (out / "classes.json").write_text(json.dumps([{"wnid": wnid, "name": names[wnid]} for wnid in CLASSES], indent=0))
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with train/, val/ and words.txt")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    count = make(options.source, options.out)
    print(", ".join(f"{side}: {count[side]:,} images" for side in COUNTS))
    if count != COUNTS:
        sys.exit(f"Expected {COUNTS}: check that {options.source} is the complete tiny-imagenet-200.")


if __name__ == "__main__":
    main()
