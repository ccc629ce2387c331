"""Index of a folder of labeled sounds, without decoding them; layouts as in `kdedge.data.readers.class_folders`."""

from pathlib import Path

from kdedge.data.dataset_index import DatasetIndex
from kdedge.data.readers.class_folders import FolderKind, list_folder
from kdedge.data.sound_samples import SoundSample
from kdedge_runtime.util.images import files_below, is_image_file
from kdedge_runtime.util.sounds import is_sound_file

__all__ = ["SOUNDS", "holds_sounds", "list_sound_folder"]

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
