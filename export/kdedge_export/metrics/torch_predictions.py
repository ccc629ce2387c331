"""Predictions of a PyTorch module or a model file, with each sample's map for a given class."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

from kdedge_export.metrics.file_predictions import Batch, Predictions, batch_size, batches, gather, run_file
from kdedge_export.saliency.methods import METHODS, GradientMethod
from kdedge_export.saliency.tracing import evaluating
from kdedge_export.torch_export.wrappers import ClassifierOnly, ExportableModel
from kdedge_runtime import Model
from kdedge_runtime.metadata import TOP_CLASS
from kdedge_runtime.util.arrays import Integers, Pixels

__all__ = ["Predictions", "TorchModel", "at_once", "predict", "weight_bytes"]

TorchModel: TypeAlias = nn.Module
"""Exported graph as a module: `forward(sample, class_index) -> (logits, saliency_map, explained_class)`.

See `kdedge_export.torch_export.wrappers.ExportableModel` for shapes; `ClassifierOnly` without maps works as well.
"""

MAX_BATCH, MAX_DIFFERENTIATED = 64, 16
"""Batch size; and batch size for methods that differentiate down to the pixels, which keep all activations (35 MB per
sample in a ResNet-18 at 224 px)."""


def predict(
    model: TorchModel | Model,
    samples: Pixels,
    classes: Integers | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> Predictions:
    """Run a model over all samples.

    Args:
        model: a PyTorch module or a model file; the module runs on its own device, in evaluation mode.
        samples: preprocessed samples `[N, …]` at the model's size, N ≥ 1.
        classes: int64 `[N]`, the class to explain in each sample; None explains each sample's top-1 class.
        progress: called with the number of samples done so far, after every batch.
    """
    requested = np.full(len(samples), TOP_CLASS, dtype=np.int64) if classes is None else classes
    if isinstance(model, Model):
        return gather(run_file(model, samples, requested, at_once(model)), len(samples), progress)
    with evaluating(model), _exact_float32(), torch.no_grad():
        return gather(_run_module(model, samples, requested), len(samples), progress)


def at_once(model: TorchModel | Model) -> int:
    """Return the batch size for a model; pixel methods evaluate many variants of each sample."""
    name = model.metadata.outputs.method if isinstance(model, Model) else None
    if isinstance(model, ExportableModel):
        name = model.explained.method
    method = METHODS.get(name or "")
    most = max(1, MAX_DIFFERENTIATED // method.count) if isinstance(method, GradientMethod) else MAX_BATCH
    return batch_size(model, most) if isinstance(model, Model) else most


def weight_bytes(model: TorchModel) -> int:
    """Return the memory of a module's parameters and buffers, in bytes."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _run_module(model: TorchModel, samples: Pixels, classes: Integers) -> Iterator[Batch]:
    weights = next(iter([*model.parameters(), *model.buffers()]), None)
    device = torch.device("cpu") if weights is None else weights.device
    for batch in batches(np.arange(len(samples)), at_once(model)):
        inputs = torch.from_numpy(samples[batch]).to(device)
        if isinstance(model, ClassifierOnly):
            logits = model(inputs).cpu().numpy()
            yield batch, logits, None, logits.argmax(axis=1)
            continue
        logits, maps, explained = model(inputs, torch.from_numpy(classes[batch]).to(device))
        yield batch, logits.cpu().numpy(), maps.cpu().numpy(), explained.cpu().numpy()


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Disable TF32 on a GPU: its 10-bit mantissa is coarser than the error allowed for an export."""
    # torch adds `conv` at run time, which type checkers cannot resolve.
    operations = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [operation.fp32_precision for operation in operations]
    for operation in operations:
        operation.fp32_precision = "ieee"
    try:
        yield
    finally:
        for operation, precision in zip(operations, before, strict=True):
            operation.fp32_precision = precision
