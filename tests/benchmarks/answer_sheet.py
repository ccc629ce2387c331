"""Picture of several answers, as `kdedge run -o FOLDER` draws them."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

__all__ = ["write_sheet"]


def write_sheet(folders: Sequence[Path], target: Path, *, width: int | None = None) -> None:
    """Write the first image of each folder side by side.

    Args:
        folders: output folders of `kdedge run -o`.
        target: file to write.
        width: width of each image in pixels; None keeps their own.
    """
    panels = []
    for folder in folders:
        with Image.open(min(folder.iterdir())) as drawn:
            panel = drawn.convert("RGB")
        panels.append(panel if width is None else panel.resize((width, width * panel.height // panel.width)))
    sheet = Image.new("RGB", (sum(panel.width for panel in panels), max(panel.height for panel in panels)), "white")
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, 0))
        left += panel.width
    sheet.save(target)
