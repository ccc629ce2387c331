"""Index of a folder of sounds, without decoding them; layouts as in `kdedge.data.readers.class_folders`."""

from pathlib import Path

from kdedge.data.dataset_index import DatasetIndex
from kdedge.data.readers.class_folders import FolderKind, list_folder, list_samples
from kdedge.data.sound_samples import SoundSample
from kdedge.data.unlabeled import UnlabeledSource
from kdedge_runtime.util.images import files_below, is_image_file
from kdedge_runtime.util.sounds import is_sound_file

__all__ = ["SOUNDS", "holds_sounds", "list_sound_folder", "list_unlabeled_sounds"]

SOUNDS = FolderKind(
    "audio", "sounds", "wav, flac, ogg, …", is_sound_file, lambda root, path: (SoundSample.below(root, path),)
)
"""Sound files. Long ones are cut when the window is known, see `SoundSample.for_input`."""
BACKGROUND = "_background_noise_"
"""Folder of recordings of no class, as in Speech Commands."""


def holds_sounds(root: Path) -> bool:
    """Return True if the first image or sound below a folder is a sound."""
    known = (path for path in files_below(root) if is_sound_file(path) or is_image_file(path)) if root.is_dir() else ()
    first = next(iter(known), None)
    return first is not None and is_sound_file(first)


def list_sound_folder(root: Path, *, unlabeled_ok: bool) -> DatasetIndex:
    """Index a folder of sounds; see `list_folder`."""
    return list_folder(root, SOUNDS, unlabeled_ok=unlabeled_ok, no_class=(BACKGROUND,))


def list_unlabeled_sounds(root: Path) -> list[UnlabeledSource]:
    """List all sounds below a folder in any layout, without classes.

    Raises:
        DataError: the folder does not exist, or has no sounds.
    """
    found = list_samples(root, SOUNDS)
    samples = [SoundSample.below(root.resolve().parent, Path(str(sample)).resolve()) for sample in found.samples]
    return [UnlabeledSource(str(root.resolve()), iter(samples), len(samples), is_footage=False)]
