"""Index of time series: `.ts` files of the UCR and UEA archives.

Layouts:

```
DATA/NAME_TRAIN.ts  DATA/NAME_TEST.ts    an archive's dataset; a part of NAME_TRAIN.ts is used for validation
DATA/NAME.ts, or a file itself           no test split
```
"""

import hashlib
from pathlib import Path

from kdedge.data.dataset_index import DatasetIndex
from kdedge.data.readers.ts_file import TsFile, read_ts
from kdedge.data.series_samples import SeriesLayout, WindowSample
from kdedge.data.splits import Split
from kdedge_runtime.errors import DataError
from kdedge_runtime.util.files import displayable, file_sha256

__all__ = ["list_series", "reads_series"]

_SUFFIX = ".ts"
_TRAIN, _TEST = "_TRAIN", "_TEST"


def reads_series(data: str) -> bool:
    """Return True for a `.ts` file, or a folder with one."""
    path = Path(data)
    return (path.suffix.lower() == _SUFFIX and path.is_file()) or (path.is_dir() and bool(_ts_files(path)))


def list_series(data: str) -> DatasetIndex:
    """Index a dataset of time series.

    Raises:
        DataError: a file is damaged, the folder has several datasets, or training and test files differ.
    """
    path = Path(data)
    train_file = path if path.is_file() else _find_train(path)
    stem = train_file.stem.removesuffix(_TRAIN)
    test_file = train_file.with_name(f"{stem}{_TEST}{train_file.suffix}")
    train = read_ts(train_file)
    test = read_ts(test_file) if test_file != train_file and test_file.is_file() else None
    if test is not None and (test.labels, test.values.shape[1:]) != (train.labels, train.values.shape[1:]):
        raise DataError(
            f"{test_file} has {_describe(test)}, but {train_file.name} has {_describe(train)}. Expected the same."
        )
    files = [train_file] if test is None else [train_file, test_file]
    return DatasetIndex(
        source=str(path.resolve()),
        labels=train.labels,
        train=_split(train_file, train),
        val=Split(),
        test=None if test is None else _split(test_file, test),
        split="hashed",
        fingerprint=hashlib.sha256("\n".join(map(file_sha256, files)).encode()).hexdigest(),
        modality="timeseries",
    )


def _ts_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == _SUFFIX and path.is_file())


def _find_train(folder: Path) -> Path:
    found = [path for path in _ts_files(folder) if not path.stem.endswith(_TEST)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(f"{folder} has no training file. Expected NAME{_TRAIN}.ts next to NAME{_TEST}.ts.")
    names = ", ".join(path.name for path in found[:5])
    raise DataError(f"{folder} has several datasets: {names}. Give one of these files instead of the folder.")


def _split(file: Path, content: TsFile) -> Split:
    channels = content.values.shape[2]
    names = (content.problem,) if channels == 1 else tuple(f"channel {index + 1}" for index in range(channels))
    layout = SeriesLayout(names)
    digits = len(str(len(content.values)))
    samples = tuple(
        WindowSample(f"{displayable(file.name)}/{number + 1:0{digits}}", str(file), values, layout)
        for number, values in enumerate(content.values)
    )
    return Split(samples, content.targets)


def _describe(content: TsFile) -> str:
    _, steps, channels = content.values.shape
    return f"{channels} channels of {steps} steps in the classes {', '.join(content.labels)}"
