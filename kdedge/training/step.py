"""The student, its auxiliary layers, and the training step."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdedge.config.recipe_file import Recipe
from kdedge.losses.loss_inputs import LossInputs, ModelOutput
from kdedge.training.compute_device import ComputeDevice
from kdedge.training.cuda_graphs import CudaGraphRunner
from kdedge.training.distributed import ProcessGroup
from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.layer_pairs import projections
from kdedge.training.objective import Objective
from kdedge.training.optimizers import make_optimizer, set_learning_rate

__all__ = ["TrainStep"]


class TrainStep:
    """Student in training with its optimizer."""

    def __init__(
        self,
        student: InstrumentedModel,
        objective: Objective,
        compute: ComputeDevice,
        group: ProcessGroup,
        *,
        recipe: Recipe,
        hinted: Sequence[tuple[int, int]] = (),
        labeled_fraction: float = 1.0,
        target_variance: float = 1.0,
    ) -> None:
        """Build the optimizer.

        Args:
            student: student, which captures the features of compared layers.
            objective: loss terms.
            compute: device and precision.
            group: processes that share every batch.
            recipe: temperature of the distillation terms, optimizer, weight decay and layer decay.
            hinted: student and teacher channels of each projected layer.
            labeled_fraction: fraction of the training samples that have labels; 1 without any.
            target_variance: variance of the training targets of a regression; 1 for classes.
        """
        self.student, self.objective, self.compute, self.group = student, objective, compute, group
        self.projections = projections(hinted).to(compute.device)
        self.temperature, self.labeled_fraction = recipe.temperature, labeled_fraction
        self.target_variance = target_variance
        self.parameters = [*student.model.parameters(), *self.projections.parameters()]
        self.optimizer = make_optimizer(
            recipe.optimizer,
            student.model,
            self.projections,
            compute,
            weight_decay=recipe.weight_decay,
            decay=recipe.layer_decay,
        )
        self._values: Callable[..., Tensor] = self.terms
        self._step: Callable[..., tuple[Tensor, ...]] = self._one_step
        if compute.compiled:
            self._values = torch.compile(self.terms, fullgraph=True, dynamic=False)
            if group.size == 1:  # communication between processes cannot be captured
                self._step = CudaGraphRunner(self._one_step)

    def terms(self, samples: Tensor, targets: Tensor, teacher_output: ModelOutput | None) -> Tensor:
        """Compute the unweighted terms on this process's part of a batch, float32 `[terms]`.

        Args:
            samples: augmented samples `[n, …]`.
            targets: float32 `[n, K]`.
            teacher_output: teacher outputs on these samples.
        """
        with self.compute.autocast():
            wanted = 0 if teacher_output is None or teacher_output.classes is None else teacher_output.classes
            prediction = self.student(samples, wanted)
            pairs = zip(self.projections, prediction.features, strict=False)
            projected = tuple(projection(feature).float() for projection, feature in pairs)
        shares = self.labeled_fraction, self.target_variance
        inputs = LossInputs(prediction, teacher_output, targets, self.temperature, projected, *shares)
        return self.objective.values(inputs, self.group)

    def learn(
        self, samples: Tensor, targets: Tensor, teacher_output: ModelOutput | None, weights: Tensor, rate: float
    ) -> Tensor:
        """Take one optimization step on the weighted sum of the terms, and return the detached terms."""
        set_learning_rate(self.optimizer, rate)
        prediction = (
            (None,)
            if teacher_output is None
            else (teacher_output.logits, teacher_output.classes, teacher_output.maps, *teacher_output.features)
        )
        return self._step(samples, targets, weights, *prediction)[0]

    def _one_step(
        self, samples: Tensor, targets: Tensor, weights: Tensor, *prediction: Tensor | None
    ) -> tuple[Tensor, ...]:
        logits, *reasons = prediction
        teacher_output = None
        if logits is not None:
            classes, maps, *features = reasons
            teacher_output = ModelOutput(
                logits, classes, maps, tuple(feature for feature in features if feature is not None)
            )
        terms = self._values(samples, targets, teacher_output)
        torch.autograd.backward((terms * weights).sum())
        self.group.average(self.parameters)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return (terms.detach(),)

    def predict(self, samples: Tensor, wanted: int | Tensor) -> ModelOutput:
        """Run the student in evaluation mode without gradients; see `InstrumentedModel.forward`."""
        self.student.eval()
        with torch.no_grad(), self.compute.autocast():
            prediction: ModelOutput = self.student(samples, wanted)
        return prediction

    @property
    def is_finite(self) -> bool:
        """True if all weights and statistics are finite; the last step of an epoch can break them after its loss."""
        state = [*self.student.model.state_dict().values(), *self.projections.state_dict().values()]
        values = [value.isfinite().all() for value in state if value.is_floating_point()]
        return bool(torch.stack(values).all())
