"""Unlabeled images in folders, patterns, WebDataset shards and videos.

A folder is searched recursively for images and videos. From a video one frame per interval is taken. Labels of shards
and names of folders are ignored.
"""

import glob
import os
from pathlib import Path

from kdedge.data.readers.tar_archive import list_tar
from kdedge.data.readers.video_frames import expected_frames, sampled_frames
from kdedge.data.readers.webdataset import is_shards, shard_files
from kdedge.data.samples import FileSample
from kdedge.data.unlabeled import UnlabeledSource
from kdedge_runtime.errors import DataError
from kdedge_runtime.sinks.frame_recorder import RECORDED
from kdedge_runtime.sources.grammar import VIDEO_SUFFIXES
from kdedge_runtime.util.images import files_below, is_image_file

__all__ = ["list_unlabeled_images"]

_EXPECTED = "Expected a folder of images, a pattern such as 'photos/*.jpg', WebDataset shards, or a video."


def list_unlabeled_images(location: str, *, every_s: float) -> list[UnlabeledSource]:
    """List the images of a location, and the frames of each video.

    Args:
        location: folder, pattern, shards or video.
        every_s: interval between the frames of a video in seconds.

    Raises:
        DataError: the location does not exist, or has neither images nor videos.
    """
    if is_shards(location):
        folder, source, tars = shard_files(location)
        found = [sample for tar in tars for sample, _ in list_tar(tar, f"{folder.name}/{_below(folder, tar)}")]
        if not found:
            raise DataError(f"{location} has no images. {_EXPECTED}")
        return [UnlabeledSource(source, iter(found), len(found), is_footage=False)]
    root, files = _files(location)
    absolute = os.path.abspath(location)  # noqa: PTH100 - keeps links and wildcards
    images = [file for file in files if is_image_file(file)]
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES or Path(location).is_file()]
    videos = [file for file in videos if not is_image_file(file)]
    if not images and not videos:
        raise DataError(f"{location} has no images (JPEG, PNG, WebP, …) and no videos. {_EXPECTED}")
    sources = []
    if images:
        samples = iter([FileSample.below(root.parent, file) for file in images])
        sources.append(UnlabeledSource(absolute, samples, len(images), is_footage=(root / RECORDED).is_file()))
    for file in videos:
        frames = sampled_frames(file, f"{root.name}/{_below(root, file)}", every_s)
        sources.append(UnlabeledSource(absolute, frames, expected_frames(file, every_s), is_footage=True))
    return sources


def _files(location: str) -> tuple[Path, list[Path]]:
    """Return the files of a location, sorted, and a folder above all of them."""
    path = Path(location)
    if path.is_dir():
        root = path.resolve()
        return root, sorted(files_below(root), key=lambda file: file.relative_to(root).parts)
    if path.exists():
        return path.resolve().parent, [path.resolve()]
    if not glob.has_magic(location):
        raise DataError(f"There is no folder or file {location}. {_EXPECTED}")
    found = {Path(os.path.abspath(name)) for name in glob.glob(location, recursive=True)}  # noqa: PTH100, PTH207
    files = {file for one in found for file in (files_below(one) if one.is_dir() else [one])}
    if not files:
        raise DataError(f"No file matches {location}. {_EXPECTED}")
    return Path(os.path.commonpath([file.parent for file in files])), sorted(files)


def _below(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()
