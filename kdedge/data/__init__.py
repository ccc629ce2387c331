"""From a folder of labelled pictures to arrays.

```python
folder = scan("photos")
dataset = load(folder, ImageInput(height=64, width=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
```
"""

from kdedge.data.dataset import Dataset, load, typical_size
from kdedge.data.decode import Decoded, decode
from kdedge.data.folder import ImageFolder, scan, subset
from kdedge.data.problems import Problems, Skipped
from kdedge.data.split import UNLABELLED, Split

__all__ = [
    "UNLABELLED",
    "Dataset",
    "Decoded",
    "ImageFolder",
    "Problems",
    "Skipped",
    "Split",
    "decode",
    "load",
    "scan",
    "subset",
    "typical_size",
]
