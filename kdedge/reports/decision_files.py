"""The decision about each picture as files: a page of its own, and its drawing as SVG and PNG."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from kdedge.pipelines.model_inspection import see_picture
from kdedge.reports.pages.decision_figure import decision_drawing
from kdedge.reports.pages.inspection_page import decision_page
from kdedge_export.onnx_import.model_loading import load_file
from kdedge_runtime import Model
from kdedge_runtime.util.files import write_whole

__all__ = ["write_decisions"]


def write_decisions(
    model: Model,
    pictures: Iterable[tuple[Path, Path]],
    *,
    class_name: str | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Iterator[Path]:
    """Write `NAME.html`, `NAME.svg` and `NAME.decision.png` beside each explained picture, and tell their paths.

    Args:
        model: a model file by kdedge.
        pictures: each picture with the file that its explanation is in.
        class_name: the class to explain, by name or number; None explains the top class.
        progress: told while long steps go on.

    Raises:
        HeadNotSupported: the model has no maps of features.
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
