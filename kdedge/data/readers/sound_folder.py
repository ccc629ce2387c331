"""Index of a folder of sounds, without decoding them; layouts as in `kdedge.data.readers.class_folders`."""

from itertools import islice
from pathlib import Path

from kdedge.data.dataset_index import DatasetIndex
from kdedge.data.readers.class_folders import FolderKind, list_folder, list_samples
from kdedge.data.sound_samples import SoundSample
from kdedge.data.unlabeled import UnlabeledSource
from kdedge_runtime.util.files import displayable
from kdedge_runtime.util.images import files_below, is_image_file
from kdedge_runtime.util.sounds import is_sound_file

__all__ = ["SOUNDS", "holds_sounds", "list_sound_folder", "list_unlabeled_sounds"]

SOUNDS = FolderKind(
    "audio", "sounds", "wav, flac, ogg, …", is_sound_file, lambda root, path: (SoundSample.below(root, path),)
)
"""Sound files. Long ones are cut when the window is known, see `SoundSample.for_input`."""
BACKGROUND = "_background_noise_"
"""Folder of recordings of no class, as in Speech Commands."""
_INSPECTED = 1_000
"""Number of images and sounds that decide what a folder holds."""


def holds_sounds(root: Path) -> bool:
    """Return True if most of the first images and sounds below a folder are sounds."""
    files = files_below(root) if root.is_dir() else iter(())
    known = islice((path for path in files if is_sound_file(path) or is_image_file(path)), _INSPECTED)
    kinds = [is_sound_file(path) for path in known]
    return 2 * sum(kinds) > len(kinds)


def list_sound_folder(root: Path, *, unlabeled_ok: bool) -> DatasetIndex:
    """Index a folder of sounds; see `list_folder`."""
    return list_folder(root, SOUNDS, unlabeled_ok=unlabeled_ok, no_class=(BACKGROUND,))


def list_unlabeled_sounds(root: Path) -> list[UnlabeledSource]:
    """List all sounds below a folder in any layout, without classes.

    Raises:
        DataError: the folder does not exist, or has no sounds.
    """
    found = list_samples(root, SOUNDS)
    name = displayable(root.resolve().name)
    samples = [SoundSample(f"{name}/{sample.name}", str(sample)) for sample in found.samples]
    return [UnlabeledSource(str(root.resolve()), iter(samples), len(samples), is_footage=False)]
