"""Fit the familiarity of a file of another framework on a folder of images."""

from dataclasses import replace

from kdedge.models.artifacts import Artifacts
from kdedge.pipelines.familiarity_samples import familiarity_samples
from kdedge.pipelines.onnx_explanation import ExplainedOnnx
from kdedge_export.familiarity.file_familiarity import add_familiarity
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["with_known_samples"]


def with_known_samples(explained: ExplainedOnnx, data: str, progress: ProgressCallback) -> ExplainedOnnx:
    """Fit statistics and threshold of an explained file that has metadata, and return it with the new metadata."""
    file = explained.file
    assert file.metadata is not None
    samples = familiarity_samples(Artifacts.open(file.path), file.metadata, data, progress)
    return replace(explained, file=replace(file, metadata=add_familiarity(file.path, samples)))
