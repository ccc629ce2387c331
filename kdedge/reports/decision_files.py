"""Layer attributions of images as files: an HTML page, and the figure as SVG and PNG."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from kdedge.pipelines.model_inspection import see_picture
from kdedge.reports.pages.decision_figure import decision_drawing
from kdedge.reports.pages.inspection_page import decision_page
from kdedge_export.onnx_import.model_loading import load_file
from kdedge_runtime import Model
from kdedge_runtime.util.files import write_whole
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["write_decisions"]


def write_decisions(
    model: Model,
    pictures: Iterable[tuple[Path, Path]],
    *,
    class_name: str | None = None,
    progress: ProgressCallback = no_progress,
) -> Iterator[Path]:
    """Write `NAME.html`, `NAME.svg` and `NAME.decision.png` next to each explained image, and yield their paths.

    Args:
        model: Model file exported by kdedge.
        pictures: Pairs of an image file and its overlay file.
        class_name: Class to explain, by name or index; None explains the top class.
        progress: Called with (step, done, total) during long steps.

    Raises:
        HeadNotSupported: The model has no spatial feature maps.
    """
    graph = load_file(model.path)
    for picture, written in pictures:
        seen = see_picture(graph, model, picture, class_name=class_name, progress=progress)
        drawing = decision_drawing(seen)
        contents: dict[str, str | bytes] = {
            ".html": decision_page(seen, model.path.name),
            ".svg": drawing.svg(standalone=True),
            ".decision.png": drawing.png(),
        }
        for suffix, content in contents.items():
            path = written.with_suffix(suffix)
            write_whole(path, content)
            yield path
