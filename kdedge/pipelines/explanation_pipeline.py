"""Explanation of images in one call. Nothing here imports torch."""

from collections.abc import Sequence
from pathlib import Path

from kdedge_runtime import Model
from kdedge_runtime.explainers import make_explainer
from kdedge_runtime.explainers.image_files import ExplainedImage, explain_images
from kdedge_runtime.explainers.target_activations import target_activations
from kdedge_runtime.model_source import open_model
from kdedge_runtime.util.files import Location
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["explain"]


def explain(
    model: Location,
    images: Sequence[Location],
    output: Location = "explained",
    *,
    class_name: str | None = None,
    method: str | None = None,
    budget_ms: float | None = None,
    parts: int | None = None,
    progress: ProgressCallback = no_progress,
) -> list[ExplainedImage]:
    """Explain images with a model file, and write each with its overlay as a PNG.

    Args:
        model: export result, model file or bundle.
        images: image files, or folders of them.
        output: folder to write to.
        class_name: class to explain, by name or index; None explains each image's top class.
        method: black-box method `occlusion`, `rise`, `lime`, `shap` or `scorecam`; None takes the file's own map.
        budget_ms: time budget of the black-box method per image in ms; None for none.
        parts: number of superpixels for `lime` and `shap`; None takes 40.
        progress: called during long steps.

    Returns:
        One entry per image: the written file, the prediction, and the black-box estimate.

    Raises:
        UsageError: the model has no such class, or the output would overwrite an image.
        SourceError: images cannot be read, or there are none.
    """
    with open_model(Path(model), Model.load) as loaded:
        explainer = None
        if method is not None:
            if method == "scorecam":
                from kdedge.pipelines.layer_activations import layer_activations as activations
            else:
                activations = target_activations
            explainer = make_explainer(loaded, method, budget_ms=budget_ms, parts=parts, activations_of=activations)
        return explain_images(
            loaded, list(map(Path, images)), Path(output), class_name=class_name, explainer=explainer, progress=progress
        )
