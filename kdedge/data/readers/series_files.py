"""Index of time series.

Layouts:

```
DATA/NAME_TRAIN.ts  DATA/NAME_TEST.ts            a dataset of the UCR and UEA archives, or its training file itself
NAME_TEST.ts                                     the same dataset, whose test cases are used for validation
DATA/CLASS/*.csv    DATA/train/CLASS/*.csv  …    one folder per class, see `kdedge.data.readers.class_folders`
DATA/*.csv          DATA/train/*.csv  …          recordings with a column of labels, cut into windows
```

Tables may be Parquet files too. `--window` cuts recordings into windows that overlap by half. All windows of a
recording are in one split.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

from kdedge.data.dataset_index import DatasetIndex, fingerprint_of
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.readers.class_folders import (
    SIDE_NAMES,
    FolderKind,
    Side,
    list_folder,
    list_samples,
    split_folders,
)
from kdedge.data.readers.recordings import RecordingReader
from kdedge.data.samples import StoredSample
from kdedge.data.series_samples import SeriesLayout, WindowSample
from kdedge.data.splits import Split
from kdedge.data.unlabeled import UnlabeledSource
from kdedge_runtime.errors import DataError, SourceError, UsageError
from kdedge_runtime.modalities.timeseries_names import unnamed_channels
from kdedge_runtime.sources.timeseries.series_rows import is_table_file
from kdedge_runtime.sources.timeseries.ts_file import TsFile, is_ts_file, read_ts
from kdedge_runtime.util.files import displayable, file_sha256
from kdedge_runtime.util.images import files_below, is_image_file

__all__ = ["list_series", "list_unlabeled_series", "reads_series"]

_TRAIN, _TEST = "_TRAIN", "_TEST"
_PROBED = 20
"""Files whose names determine the kind of a folder."""
_UNLABELED = "Expected a folder of recordings (CSV, Parquet), or a .ts file."
_COMPANIONS = frozenset({".json", ".md", ".txt", ".toml", ".yaml", ".yml"})


def reads_series(data: str) -> bool:
    """Return True for a `.ts` file, or a folder of them, of recordings, or of class folders of recordings."""
    path = Path(data)
    if not path.is_dir():
        return is_ts_file(path)
    if _ts_files(path):
        return True
    # A table named after a split has rows of its own as samples; see the modality `tabular`.
    named = {file.stem.lower() for file in path.iterdir() if is_table_file(file)}
    if any(name in named for names in SIDE_NAMES.values() for name in names):
        return False
    files = list(islice((file for file in files_below(path) if file.suffix.lower() not in _COMPANIONS), _PROBED))
    if not files or not all(map(is_table_file, files)):
        return False
    # Tables next to class folders of images, such as their annotations.
    return not any(is_image_file(file) for file in files_below(path) if file.parent != path)


def list_series(data: str, options: DatasetOptions, *, unlabeled_ok: bool) -> DatasetIndex:
    """Index a dataset of time series.

    Raises:
        DataError: a file is damaged, files differ in channels, rate or length, or the classes cannot train a
            classifier.
        UsageError: the window length is invalid, or given for the cases of an archive.
        MissingDependency: pyarrow is needed for Parquet files.
    """
    path = Path(data)
    if path.is_file() or _ts_files(path):
        if options.window is not None:
            raise UsageError(f"--window cuts recordings, but {path} has cases of one length. Remove --window.")
        return _list_archive(path)
    reader = RecordingReader(options.window)
    found = split_folders(path)
    sides: dict[Side, Path] = found if "train" in found else {"train": path}
    has_classes = any(each.is_dir() for folder in sides.values() for each in folder.iterdir() if each.name[0] != ".")
    if has_classes:
        dataset = list_folder(path, _recordings(reader), unlabeled_ok=unlabeled_ok)
    else:
        dataset = _list_labeled(path, sides, reader)
    reader.warn()
    dataset = replace(dataset, columns=reader.channels, check_input=reader.check_input)
    if options.window is None:
        return dataset
    if options.group_by is None and dataset.split == "hashed":
        _require_recordings(dataset)
    return replace(dataset, group_of=_recording_of)


def list_unlabeled_series(location: Path, sample: WindowSample) -> list[UnlabeledSource]:
    """List the windows of recordings, or the cases of a `.ts` file, without their labels.

    Args:
        location: folder of recordings in any layout, or a `.ts` file.
        sample: window of the dataset, whose channels, rate and length they must have; longer recordings are cut.

    Raises:
        DataError: the location does not exist, has no recordings, or they differ from the dataset.
        MissingDependency: pyarrow is needed for Parquet files.
    """
    if location.is_file():
        samples: tuple[StoredSample, ...] = _unlabeled_cases(location, sample)
    else:
        reader = RecordingReader.like(sample)
        samples = list_samples(location, _recordings(reader), _UNLABELED).samples
        reader.warn()
    prefix = displayable(location.resolve().parent.name if location.is_file() else location.resolve().name)
    named = (replace(each, name=f"{prefix}/{each.name}") for each in samples)
    return [UnlabeledSource(str(location.resolve()), named, len(samples), is_footage=False)]


def _unlabeled_cases(file: Path, sample: WindowSample) -> tuple[WindowSample, ...]:
    if not is_ts_file(file):
        raise DataError(f"{file} is not a folder. {_UNLABELED}")
    try:
        content = read_ts(file)
    except SourceError as error:
        raise DataError(str(error)) from error
    if content.values.shape[1:] != sample.values.shape:
        steps, channels = sample.values.shape
        raise DataError(
            f"{file} has {_describe(content)}, but the dataset has {channels} channels of {steps} steps. Expected the "
            "same."
        )
    return tuple(replace(each, layout=sample.layout) for each in _windows(file, content))


def _recordings(reader: RecordingReader) -> FolderKind:
    return FolderKind("timeseries", "recordings", "CSV, Parquet", is_table_file, reader.samples_of)


def _list_labeled(root: Path, sides: Mapping[Side, Path], reader: RecordingReader) -> DatasetIndex:
    """Index recordings with a column of labels."""
    files = {side: sorted(file for file in folder.iterdir() if is_table_file(file)) for side, folder in sides.items()}
    found = {
        side: [pair for file in each for pair in reader.labeled_samples(root, file, has_labels=True)]
        for side, each in files.items()
    }
    labels = tuple(sorted({label for _, label in found["train"]}))
    strange = sorted({label for pairs in found.values() for _, label in pairs} - set(labels))
    if strange:
        raise DataError(f"{root}: the classes {', '.join(strange)} have no training windows. Expected some of each.")
    if len(labels) < 2:
        raise DataError(f"{root} has the class {', '.join(labels)} only; a classifier needs two or more.")
    index = {label: number for number, label in enumerate(labels)}
    splits = {
        side: Split(tuple(sample for sample, _ in pairs), tuple(index[label] for _, label in pairs))
        for side, pairs in found.items()
    }
    sizes = [f"{file.relative_to(root)}\0{file.stat().st_size}" for each in files.values() for file in each]
    return DatasetIndex(
        source=str(root.resolve()),
        labels=labels,
        train=splits["train"],
        val=splits.get("val", Split()),
        test=splits.get("test"),
        split="folders" if "val" in splits else "hashed",
        fingerprint=fingerprint_of(sizes),
        modality="timeseries",
    )


def _recording_of(name: str) -> str:
    return name.rpartition("#")[0] or name


def _require_recordings(dataset: DatasetIndex) -> None:
    """Raise unless every class is in two recordings, so that one is left for validation."""
    recordings: dict[int, set[str]] = {}
    for sample, target in dataset.train.pairs():
        recordings.setdefault(int(target), set()).add(_recording_of(sample.name))
    for target, names in sorted(recordings.items()):
        if len(names) < 2:
            raise DataError(
                f"The class {dataset.labels[target]} is only in the recording {min(names)}, so none is left for "
                "validation: windows of one recording resemble each other. Expected two recordings of each class, or "
                "folders train/ and val/."
            )


def _ts_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_ts_file(path))


def _find_train(folder: Path) -> Path:
    found = [path for path in _ts_files(folder) if not path.stem.endswith(_TEST)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(f"{folder} has no training file. Expected NAME{_TRAIN}.ts next to NAME{_TEST}.ts.")
    names = ", ".join(path.name for path in found[:5])
    raise DataError(f"{folder} has several datasets: {names}. Give one of these files instead of the folder.")


def _list_archive(path: Path) -> DatasetIndex:
    """Index a dataset of the UCR and UEA archives, by its folder, its training file or its test file."""
    train_file = path if path.is_file() else _find_train(path)
    stem = train_file.stem.removesuffix(_TRAIN).removesuffix(_TEST)
    test_file = train_file.with_name(f"{stem}{_TEST}{train_file.suffix}")
    partner = train_file.with_name(f"{stem}{_TRAIN}{train_file.suffix}")
    validates = train_file == test_file and partner.is_file()
    train_file = partner if validates else train_file
    try:
        train = read_ts(train_file)
        test = read_ts(test_file) if test_file != train_file and test_file.is_file() else None
    except SourceError as error:
        raise DataError(str(error)) from error
    if test is not None and (test.labels, test.values.shape[1:]) != (train.labels, train.values.shape[1:]):
        raise DataError(
            f"{test_file} has {_describe(test)}, but {train_file.name} has {_describe(train)}. Expected the same."
        )
    files = [train_file] if test is None else [train_file, test_file]
    held_out = None if test is None else _split(test_file, test)
    return DatasetIndex(
        source=str(path.resolve()),
        labels=train.labels,
        train=_split(train_file, train),
        val=held_out if validates and held_out is not None else Split(),
        test=None if validates else held_out,
        split="official" if validates else "hashed",
        fingerprint=hashlib.sha256("\n".join(map(file_sha256, files)).encode()).hexdigest(),
        modality="timeseries",
        columns=_channels(train) if train.values.shape[2] == 1 else (),
    )


def _channels(content: TsFile) -> tuple[str, ...]:
    count = content.values.shape[2]
    return (content.problem,) if count == 1 else unnamed_channels(count)


def _split(file: Path, content: TsFile) -> Split:
    return Split(_windows(file, content), content.targets)


def _windows(file: Path, content: TsFile) -> tuple[WindowSample, ...]:
    layout = SeriesLayout(_channels(content))
    digits = len(str(len(content.values)))
    return tuple(
        WindowSample(f"{displayable(file.name)}/{number + 1:0{digits}}", str(file), values, layout)
        for number, values in enumerate(content.values)
    )


def _describe(content: TsFile) -> str:
    _, steps, channels = content.values.shape
    return f"{channels} channels of {steps} steps in the classes {', '.join(content.labels)}"
