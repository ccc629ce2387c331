"""Datasets of labeled images in any storage, loaded as arrays.

```
scan(DATA)  index of a folder, a torchvision dataset, or shards                Collection of Samples
load        the whole dataset in memory, if it fits                            Dataset
Stream      batches in any order from worker processes otherwise               Iterator[Tensor]
```
"""

from kdedge.data.dataset import Dataset, load, load_validation, typical_size
from kdedge.data.dataset_index import Collection, subset
from kdedge.data.decoding import Decoded, decode
from kdedge.data.readers.reader_choice import scan
from kdedge.data.samples import FileSample, Sample
from kdedge.data.splits import UNLABELLED, Split
from kdedge.data.unreadable_files import Problems, Skipped

__all__ = [
    "UNLABELLED",
    "Collection",
    "Dataset",
    "Decoded",
    "FileSample",
    "Problems",
    "Sample",
    "Skipped",
    "Split",
    "decode",
    "load",
    "load_validation",
    "scan",
    "subset",
    "typical_size",
]
