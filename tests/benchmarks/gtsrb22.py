"""Convert the German traffic signs (GTSRB) to `gtsrb22`: 22 of their 43 classes, split by track.

```
unzip GTSRB_Final_Training_Images.zip          # 276 MB, from
https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370
python tests/benchmarks/gtsrb22.py GTSRB/Final_Training/Images gtsrb22
```

writes `gtsrb22/train/CLASS/*.webp` (3,114), `gtsrb22/val/CLASS/*.webp` (390) and `gtsrb22/boxes.csv`. The classes are
those with an even number. A track is one sign in 30 frames from an approaching car; every fifth frame is used. Tracks
whose number ends in 4 form the validation split, tracks that end in 9 are excluded, and all others form the training
split. WebP is lossless, so pixels and sizes are unchanged. torchvision's `GTSRB` is a different archive with fewer
tracks per class, which the counts reveal.
"""

import argparse
import csv
import sys
from collections import Counter
from pathlib import Path

from PIL import Image

CLASSES = range(0, 43, 2)
FRAMES = range(4, 30, 5)
"""Indices of the used frames among the 30 of a track."""
COUNTS = {"train": 3_114, "val": 390}
BOX = ("Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2")


def side_of(track: int) -> str | None:
    """Return the split of a track's images, or None if the track is excluded."""
    return {4: "val", 9: None}.get(track % 10, "train")


def make(images: Path, out: Path) -> Counter[str]:
    """Write the folders and the boxes, and return the number of images per split."""
    count: Counter[str] = Counter()
    rows = [["file", "x1", "y1", "x2", "y2"]]
    for number in CLASSES:
        folder = images / f"{number:05}"
        with (folder / f"GT-{number:05}.csv").open(newline="") as file:
            annotations = sorted(csv.DictReader(file, delimiter=";"), key=lambda row: row["Filename"])
        for row in annotations:
            track, frame = (int(part) for part in Path(row["Filename"]).stem.split("_"))
            side = side_of(track)
            if side is None or frame not in FRAMES:
                continue
            file_name = f"{side}/{number:02}/{Path(row['Filename']).stem}.webp"
            (out / file_name).parent.mkdir(parents=True, exist_ok=True)
            with Image.open(folder / row["Filename"]) as image:
                image.save(out / file_name, lossless=True)
            rows.append([file_name, *(row[name] for name in BOX)])
            count[side] += 1
    with (out / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder with the class folders 00000/ … 00042/")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    count = make(options.images, options.out)
    print(", ".join(f"{side}: {count[side]:,} images" for side in COUNTS))
    if count != COUNTS:
        sys.exit(f"Expected {COUNTS}: check that {options.images} is the folder of GTSRB_Final_Training_Images.zip.")


if __name__ == "__main__":
    main()
