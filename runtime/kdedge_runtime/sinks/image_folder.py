"""Overlays as image files in a folder."""

from pathlib import Path
from types import TracebackType
from typing import Self

from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.files import UniqueNames, atomic_write, shorten
from kdedge_runtime.util.images import encode_jpeg, is_image_file

__all__ = ["ImageFolder"]

_QUALITY = 92


class ImageFolder:
    """Writes each overlay as `NAME.jpg`, with hyphens for spaces and colons. Subfolders are kept."""

    wants_overlay = True

    def __init__(self, folder: Path, *, names_differ: bool) -> None:
        """Create a sink.

        Args:
            folder: output folder, created if missing.
            names_differ: True if frame names are unique, so that an existing file is simply replaced. False adds `-2`,
            `-3`, … to repeated names, which requires storing all names.
        """
        self._folder = folder
        self._names = None if names_differ else UniqueNames()

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        pass

    def write(self, prediction: Prediction, progress: RunProgress) -> None:
        """Write one image."""
        if prediction.overlay is None:
            return
        name = Path(prediction.frame.name.replace(":", "-").replace(" ", "-"))
        stem = name.with_suffix("") if is_image_file(name) else name
        # Names of long camera recordings are not stored.
        file = f"{shorten(stem.as_posix())}.jpg" if self._names is None else self._names.take(stem.as_posix(), ".jpg")
        target = self._folder / file
        try:
            atomic_write(target, encode_jpeg(prediction.overlay, _QUALITY), durable=False)
        except OSError as error:
            raise KdedgeError(
                f"{target} cannot be written: {error.strerror or error}. All images before it are complete."
            ) from error
