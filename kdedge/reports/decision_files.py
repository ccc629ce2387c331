"""Layer attributions of images as files: an HTML page, and the figure as SVG and PNG."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from kdedge.pipelines.model_inspection import inspect_image
from kdedge.reports.decision_figure import decision_figure
from kdedge.reports.inspection_page import decision_page
from kdedge_export.onnx_import.foreign_file import ForeignFile
from kdedge_export.onnx_import.model_loading import load_foreign_model
from kdedge_runtime import Model
from kdedge_runtime.util.files import atomic_write
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["write_decisions"]


def write_decisions(
    model: Model,
    images: Iterable[tuple[Path, Path]],
    *,
    class_name: str | None = None,
    progress: ProgressCallback = no_progress,
) -> Iterator[Path]:
    """Write `NAME.html`, `NAME.svg` and `NAME.decision.png` next to each explained image, and yield their paths.

    Args:
        model: model file exported by kdedge.
        images: pairs of an image file and its overlay file.
        class_name: class to explain, by name or index; None explains the top class.
        progress: called with (step, done, total) during long steps.

    Raises:
        HeadNotSupported: the model has no spatial feature maps.
    """
    graph = load_foreign_model(ForeignFile.open(model.path))
    for image, written in images:
        seen = inspect_image(graph, model, image, class_name=class_name, progress=progress)
        figure = decision_figure(seen)
        contents: dict[str, str | bytes] = {
            ".html": decision_page(seen, model.path.name),
            ".svg": figure.svg_file(),
            ".decision.png": figure.png(),
        }
        for suffix, content in contents.items():
            path = written.with_suffix(suffix)
            atomic_write(path, content)
            yield path
