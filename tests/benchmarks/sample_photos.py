"""Convert a sample of ImageNet to `PHOTOS`: 500 photos, one for each class with an even number.

```
git clone --depth 1 https://github.com/EliSchwartz/imagenet-sample-images
python tests/benchmarks/sample_photos.py imagenet-sample-images photos
```

writes `photos/NUMBER_WNID.jpg`, shorter side at most 256 px (Lanczos), JPEG quality 90. With Pillow 13 the files equal
those of the tables byte for byte. The photos are probably ImageNet training images: they show agreement between two
files, never accuracy.
"""

import argparse
import sys
from pathlib import Path

from PIL import Image

SHORT_SIDE_PX = 256
QUALITY = 90
COUNT = 500


def small(image: Image.Image) -> Image.Image:
    """Return an RGB image whose shorter side is at most 256 px."""
    rgb = image.convert("RGB")
    scale = SHORT_SIDE_PX / min(rgb.size)
    if scale >= 1:
        return rgb
    width, height = (round(side * scale) for side in rgb.size)
    return rgb.resize((width, height), Image.Resampling.LANCZOS)


def make(source: Path, out: Path) -> int:
    """Write every second photo in the order of the class ids, and return their number."""
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(source.glob("n[0-9]*_*.JPEG"))
    for number in range(0, len(files), 2):
        wnid = files[number].name.partition("_")[0]
        with Image.open(files[number]) as image:
            small(image).save(out / f"{number:04}_{wnid}.jpg", quality=QUALITY)
    return len(range(0, len(files), 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with a photo WNID_NAME.JPEG for each of the 1,000 classes")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    count = make(options.source, options.out)
    print(f"{count} photos")
    if count != COUNT:
        sys.exit(f"Expected {COUNT}: check that {options.source} contains all 1,000 photos.")


if __name__ == "__main__":
    main()
