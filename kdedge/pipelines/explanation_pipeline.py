"""Explanation of samples in one call. Nothing here imports torch."""

from collections.abc import Sequence
from pathlib import Path

from kdedge_runtime import Model
from kdedge_runtime.explainers import make_explainer
from kdedge_runtime.explainers.sample_files import ExplainedSample, explain_samples
from kdedge_runtime.explainers.target_activations import target_activations
from kdedge_runtime.model_source import open_model
from kdedge_runtime.util.files import Location
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["explain"]


def explain(
    model: Location,
    samples: Sequence[Location],
    output: Location = "explained",
    *,
    class_name: str | None = None,
    method: str | None = None,
    budget_ms: float | None = None,
    segments: int | None = None,
    limit: int | None = None,
    progress: ProgressCallback = no_progress,
) -> list[ExplainedSample]:
    """Explain samples with a model file, and draw each with its map as a PNG.

    Args:
        model: export result, model file or bundle.
        samples: files of samples, such as images or recordings, or folders of them.
        output: folder to write to.
        class_name: class to explain, by name or index; None explains each sample's top class.
        method: black-box method `occlusion`, `rise`, `lime`, `shap` or `scorecam`; None takes the file's own map.
        budget_ms: time budget of the black-box method per sample in ms; None for none.
        segments: number of segments for `lime` and `shap`; None takes 40.
        limit: maximum number of samples, the first ones; None for no limit.
        progress: called during long steps.

    Returns:
        One entry per sample: the written file, the prediction, and the black-box estimate.

    Raises:
        UsageError: the model has no such class, or the output would overwrite an input file.
        SourceError: samples cannot be read, or there are none.
    """
    with open_model(Path(model), Model.load) as loaded:
        explainer = None
        if method is not None:
            if method == "scorecam":
                from kdedge.pipelines.layer_activations import layer_activations as activations
            else:
                activations = target_activations
            explainer = make_explainer(
                loaded, method, budget_ms=budget_ms, segments=segments, activations_of=activations
            )
        return explain_samples(
            loaded,
            list(map(Path, samples)),
            Path(output),
            class_name=class_name,
            explainer=explainer,
            limit=limit,
            progress=progress,
        )
