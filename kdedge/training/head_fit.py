"""Fit the last layer of a network on the features of its frozen layers (linear probing).

The features of every training sample are computed once, without augmentation. The layer then minimizes the terms of the
loss that depend on logits alone, with an L2 penalty, by L-BFGS: multinomial logistic regression for cross-entropy.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import LBFGS

from kdedge.losses import LOSS_TERMS
from kdedge.losses.loss_inputs import LossInputs, ModelOutput
from kdedge.training.batches import Batches
from kdedge.training.compute_device import evaluation_batch
from kdedge.training.distributed import ProcessGroup
from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.interruption import StopRequested, never_stop
from kdedge.training.objective import make_objective
from kdedge.training.step import TrainStep
from kdedge.training.teachers.teacher import Teacher
from kdedge_runtime.errors import KdedgeError

__all__ = ["LastLayer", "find_last_layer", "fit_head", "minimize"]

_STRENGTHS = (25.0, 250.0, 2500.0)
"""Compared inverse strengths of the L2 penalty for features of unit length: scikit-learn's C at that scale."""
_HELD_OUT = 5
"""Every fifth sample compares the strengths; the chosen one is then fitted on all samples."""
_MAX_ITERATIONS = 300
_CONVEX = {"ce", "kd"}
"""Terms that L-BFGS minimizes from zero; others may be stationary there, and start from the fit to soft targets."""
MAX_SAMPLES = 20_000
"""Maximum number of samples, chosen at random, so that their features fit in memory."""
_TOLERANCE = 1e-4
"""Tolerance on the logits relative to the largest."""


@dataclass(frozen=True)
class LastLayer:
    """Dense layer that returns the logits."""

    path: str
    """Module path."""
    weight: Tensor
    """Parameter: matrix `[K, D]`, or kernel `[K, D, 1, 1]`."""
    bias: Tensor | None

    @property
    def parameters(self) -> list[Tensor]:
        """Weight and bias."""
        return [self.weight, *([] if self.bias is None else [self.bias])]

    def logits(self, features: Tensor) -> Tensor:
        """Compute logits `[N, K]` from features `[N, D]`."""
        return F.linear(features, self.weight.flatten(1), self.bias)


def find_last_layer(student: InstrumentedModel, head: Sequence[str], samples: Tensor) -> LastLayer | None:
    """Find the dense layer that returns the logits, or return None if there is none.

    Args:
        student: network.
        head: tensors whose first dimension is the number of outputs.
        samples: a few samples, on which the layer has to reproduce the logits.

    Raises:
        KdedgeError: the logits are not finite.
    """
    paths = {name.rpartition(".")[0] for name in head}
    if len(paths) != 1:
        return None
    path = paths.pop()
    layer = student.model.get_submodule(path)
    is_pointwise = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
    if not isinstance(layer, nn.Linear) and not is_pointwise:
        return None
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    last = LastLayer(path, layer.weight, layer.bias)
    student.eval()
    with torch.no_grad():
        features, logits = _features(student, path, samples)
        if not bool(logits.isfinite().all()):
            raise KdedgeError("The network's logits are not finite. Expected trained weights; check --weights.")
        if features.shape != (len(samples), last.weight.shape[1]):
            return None
        error = (last.logits(features) - logits).abs().max()
    return last if float(error) <= _TOLERANCE * float(logits.abs().max()) else None


def fit_head(
    train_step: TrainStep,
    batches: Batches,
    teacher: Teacher | None,
    last: LastLayer,
    weights: Mapping[str, float],
    must_stop: Callable[[], bool] = never_stop,
) -> dict[str, float]:
    """Fit the last layer in place, and return the mean of each fitted term.

    All other layers, and the statistics of normalization, stay unchanged. If no term of the loss depends on logits
    alone, the layer stays unchanged, too.

    Args:
        train_step: student, loss and processes.
        batches: training samples with their targets; at most `MAX_SAMPLES` are used.
        teacher: teacher, or None.
        last: last layer of the student.
        weights: mapping from term name to weight.
        must_stop: polled after every batch and iteration, unless several processes train.

    Raises:
        StopRequested: `must_stop` returned True.
        KdedgeError: the loss is not finite.
    """
    names = [name for name in weights if LOSS_TERMS[name].uses_logits_alone]
    if not names:
        return {}
    source = teacher if any(LOSS_TERMS[name].needs_teacher for name in names) else None
    features, index, taught = _collect(train_step, batches, source, last, must_stop)
    squared_norm = float(features.square().sum(dim=1).mean())
    terms = make_objective(names, train_step.objective.settings)
    shares = torch.tensor([weights[name] for name in names], device=features.device)
    shares /= shares.sum()
    targets, temperature = batches.targets(index), train_step.temperature

    def on(rows: Tensor | slice) -> Callable[[], Tensor]:
        """Return a function that computes the terms on some samples."""
        inputs, answers = features[rows], targets[rows]
        teacher_output = None if taught is None else ModelOutput(taught[rows])

        def losses() -> Tensor:
            prediction = ModelOutput(last.logits(inputs))
            # Every process holds all features, so there is nothing to gather.
            shares = train_step.labeled_fraction, train_step.target_variance
            found = LossInputs(prediction, teacher_output, answers, temperature, (), *shares)
            return terms.values(found, ProcessGroup())

        return losses

    def start() -> None:
        with torch.no_grad():
            for parameter in last.parameters:
                parameter.zero_()
        if not _CONVEX.issuperset(names):
            soft = targets if taught is None or bool(targets.any()) else taught.softmax(dim=1)
            penalty = squared_norm / (_STRENGTHS[1] * len(soft))
            minimize(last, lambda: F.cross_entropy(last.logits(features), soft), penalty)

    def fit(losses: Callable[[], Tensor], strength: float, count: int) -> None:
        def loss() -> Tensor:
            if train_step.group.size == 1 and must_stop():
                raise StopRequested
            return (losses() * shares).sum()

        start()
        minimize(last, loss, squared_norm / (strength * count))

    held_out = torch.arange(len(features), device=features.device) % _HELD_OUT == 0
    fitted, compared, everything = on(~held_out), on(held_out), on(slice(None))
    errors = {}
    for strength in _STRENGTHS if len(features) > _HELD_OUT else ():
        fit(fitted, strength, int((~held_out).sum()))
        with torch.no_grad():
            errors[strength] = float((compared() * shares).sum())
    fit(everything, min(errors, key=errors.__getitem__, default=_STRENGTHS[1]), len(features))
    with torch.no_grad():
        values: list[float] = everything().tolist()
        if not all(map(math.isfinite, values)):
            raise KdedgeError(
                "The last layer cannot be fitted: the loss on the features of the frozen layers is not finite. "
                "Expected trained weights; check --weights."
            )
        for parameter in last.parameters:  # processes on different machines may differ in the last digit
            train_step.group.mean(parameter)
    return dict(zip(names, values, strict=True))


def minimize(last: LastLayer, loss: Callable[[], Tensor], penalty: float) -> None:
    """Minimize `loss + penalty / 2 · ‖W‖²` over the layer's weight W and its bias by L-BFGS."""
    optimizer = LBFGS(last.parameters, max_iter=_MAX_ITERATIONS, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = loss() + 0.5 * penalty * last.weight.square().sum()
        torch.autograd.backward(total)
        return total

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    optimizer.zero_grad()


def _collect(
    train_step: TrainStep, batches: Batches, teacher: Teacher | None, last: LastLayer, must_stop: Callable[[], bool]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Compute the features `[N, D]` of training samples, their indices, and the teacher's logits `[N, K]`."""
    group, store = train_step.group, batches.samples
    count = min(len(store), MAX_SAMPLES)
    index = torch.randperm(len(store), generator=torch.Generator().manual_seed(0))[:count].to(store.targets.device)
    padded = torch.cat((index, index[: -count % group.size]))  # gathering needs equal counts in all processes
    train_step.student.eval()
    features, logits = [], []
    with torch.no_grad():
        for _, samples in store.batches(torch.split(group.shard(padded), evaluation_batch(padded.device))):
            if group.size == 1 and must_stop():
                raise StopRequested
            with train_step.compute.autocast():
                features.append(_features(train_step.student, last.path, samples)[0].float())
            if teacher is not None:
                logits.append(teacher(samples).logits)
        taught = group.gather(torch.cat(logits))[:count] if logits else None
        return group.gather(torch.cat(features))[:count], index, taught


def _features(student: InstrumentedModel, path: str, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the input of a layer, flattened to `[N, D]`, and the logits."""
    caught: list[Tensor] = []
    layer = student.model.get_submodule(path)
    handle = layer.register_forward_pre_hook(lambda _layer, inputs: caught.append(inputs[0].flatten(1).clone()))
    try:
        logits: Tensor = student(samples).logits
    finally:
        handle.remove()
    return torch.cat(caught), logits
