"""Datasets in any storage, loaded as arrays.

```
index_dataset   classes and splits of a dataset, before samples are read     DatasetIndex of StoredSamples
load            all samples in memory, if they fit                           Dataset
SampleStream    batches in any order from worker processes otherwise         Iterator[Tensor]
```
"""

from kdedge.data.dataset import Dataset, load, load_validation, typical_size
from kdedge.data.dataset_index import DatasetIndex, subset
from kdedge.data.decoding import DecodedSamples, decode
from kdedge.data.readers.reader_choice import index_dataset
from kdedge.data.samples import FileSample, StoredSample
from kdedge.data.skipped_samples import SkippedSample, SkippedSamples
from kdedge.data.splits import UNLABELED, Split

__all__ = [
    "UNLABELED",
    "DatasetIndex",
    "Dataset",
    "DecodedSamples",
    "FileSample",
    "SkippedSamples",
    "StoredSample",
    "SkippedSample",
    "Split",
    "decode",
    "load",
    "load_validation",
    "index_dataset",
    "subset",
    "typical_size",
]
