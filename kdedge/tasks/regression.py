"""Regression: one value in the unit of the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdedge.tasks.training_task import TrainingTask

if TYPE_CHECKING:
    from torch import Tensor

    from kdedge.config.loss_spec import LossSpec

__all__ = ["REGRESSION", "RegressionTraining"]


class RegressionTraining(TrainingTask):
    """Targets are values; the best epoch has the highest R²."""

    unfit_terms: Mapping[str, str] = {"ce": "rse", "kd": "rsekd", "ls": "rsekd", "dkd": "rsekd", "dist": "rsekd"}

    def targets(self, values: Tensor, outputs: int) -> Tensor:
        """Return the values as a column, `[n, 1]`."""
        return values.float()[:, None]

    def default_loss(self, recipe: LossSpec) -> LossSpec:
        """Replace the terms of classes by squared errors; terms of maps stay."""
        return recipe.renamed(self.unfit_terms)

    def metrics(self, logits: Tensor, values: Tensor) -> dict[str, float]:
        """Compute `r2`, `mae` in the unit of the target, and `loss`, the relative squared error `1 - r2`."""
        error = logits[:, 0].double() - values.double()
        spread = values.double().var(correction=0).clamp_min(1e-30)
        relative = float((error**2).mean() / spread)
        return {"r2": 1 - relative, "mae": float(error.abs().mean()), "loss": relative}

    def unit(self, labels: Sequence[str]) -> str | None:
        """Return the unit in the title of the target column, such as `kW` of `power [kW]`."""
        from kdedge_runtime.modalities.table_column import split_unit

        return split_unit(labels[0])[1]

    def summary(self, metrics: Mapping[str, float], labels: Sequence[str]) -> str:
        """Return R² and the mean absolute error with its unit."""
        from kdedge_export.html.text import plain_number

        return f"R² {metrics['r2']:.3f}, mean absolute error {plain_number(metrics['mae'], self.unit(labels))}"

    def merit(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Return R²."""
        return (metrics.get("val_r2", float("-inf")),)


REGRESSION = RegressionTraining()
