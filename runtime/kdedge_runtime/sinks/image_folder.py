"""Overlays as image files in a folder."""

from pathlib import Path
from types import TracebackType
from typing import Self

from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.prediction import Answer
from kdedge_runtime.stream.statistics import Progress
from kdedge_runtime.util.files import UniqueNames, shortened, write_whole
from kdedge_runtime.util.images import is_picture, jpeg

__all__ = ["PictureFolder"]

_QUALITY = 92


class PictureFolder:
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

    def write(self, answer: Answer, progress: Progress) -> None:
        """Write one image."""
        if answer.overlay is None:
            return
        name = Path(answer.frame.name.replace(":", "-").replace(" ", "-"))
        stem = name.with_suffix("") if is_picture(name) else name
        # Names of long camera recordings are not stored.
        file = f"{shortened(stem.as_posix())}.jpg" if self._names is None else self._names.take(stem.as_posix(), ".jpg")
        target = self._folder / file
        try:
            write_whole(target, jpeg(answer.overlay, _QUALITY), durable=False)
        except OSError as error:
            raise KdedgeError(
                f"{target} cannot be written: {error.strerror or error}. All images before it are complete."
            ) from error
