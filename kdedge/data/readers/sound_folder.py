"""Index of a folder of labeled sounds, without decoding them; layouts as in `kdedge.data.readers.image_folder`."""

from pathlib import Path

from kdedge.data.dataset_index import DatasetIndex, fingerprint_of
from kdedge.data.sound_samples import SoundSample
from kdedge.data.splits import Split
from kdedge_runtime.errors import DataError
from kdedge_runtime.util.images import files_below
from kdedge_runtime.util.sounds import is_sound_file

__all__ = ["holds_sounds", "list_sound_folder"]


def holds_sounds(root: Path) -> bool:
    """Return True if the first visible file with a suffix below a folder is a sound."""
    return root.is_dir() and any(is_sound_file(path) for path in files_below(root))


def list_sound_folder(root: Path, *, unlabeled_ok: bool) -> DatasetIndex:
    """Index a folder of sounds."""
    sides = {
        path.name: path for path in sorted(root.iterdir()) if path.is_dir() and path.name in ("train", "val", "test")
    }
    folders = sides if "train" in sides and "val" in sides else {"train": root}
    labels = tuple(sorted(path.name for path in folders["train"].iterdir() if path.is_dir()))
    if len(labels) < 2:
        raise DataError(f"{root} has fewer than two class folders of sounds.")
    splits = {side: _split(folder, labels, root) for side, folder in folders.items()}
    names = [f"{sample.name}\0{sample.stamp()}" for split in splits.values() for sample in split.samples]
    return DatasetIndex(
        source=str(root.resolve()),
        labels=labels,
        train=splits["train"],
        val=splits.get("val", Split()),
        test=splits.get("test"),
        split="folders" if "val" in splits else "hashed",
        fingerprint=fingerprint_of(names),
        modality="audio",
    )


def _split(folder: Path, labels: tuple[str, ...], root: Path) -> Split:
    pairs = [
        (SoundSample.below(root, path), index)
        for index, label in enumerate(labels)
        for path in sorted(files_below(folder / label))
        if is_sound_file(path)
    ]
    return Split(tuple(sample for sample, _ in pairs), tuple(index for _, index in pairs))
