"""Task regression in training: targets, metrics and losses without a unit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score

import kdedge
from kdedge.config.loss_spec import parse_loss
from kdedge.config.resolved_config import requested_recipe
from kdedge.config.train_config import TrainConfig
from kdedge.losses import LOSS_TERMS
from kdedge.losses.loss_inputs import LossInputs, ModelOutput
from kdedge.tasks import TRAINING_TASKS
from kdedge.tasks.regression import REGRESSION
from kdedge_runtime.errors import UsageError
from kdedge_runtime.tasks import TASKS


def outputs(scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = scale * torch.randn(50, generator=generator)
    return (values + 0.3 * scale * torch.randn(50, generator=generator))[:, None], values


@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_metrics_equal_scikit_learn(scale: float) -> None:
    logits, values = outputs(scale)
    found = REGRESSION.metrics(logits, values)
    assert found["r2"] == pytest.approx(r2_score(values, logits[:, 0]), rel=1e-5)
    assert found["mae"] == pytest.approx(mean_absolute_error(values, logits[:, 0]), rel=1e-5)
    assert found["loss"] == pytest.approx(1 - found["r2"])
    assert REGRESSION.merit({"val_r2": 0.5}) > REGRESSION.merit({"val_r2": 0.4}) > REGRESSION.merit({})
    assert TRAINING_TASKS["regression"] is REGRESSION


@pytest.mark.parametrize(
    ("title", "unit", "error"), [("power [kW]", "kW", "error 1,192 kW"), ("power", None, "error 1,192")]
)
def test_error_has_the_unit_of_the_target(title: str, unit: str | None, error: str) -> None:
    assert REGRESSION.unit((title,)) == unit
    assert REGRESSION.summary({"r2": 0.5, "mae": 1192.3}, (title,)).endswith(error)
    assert TRAINING_TASKS["classify"].unit((title, "other")) is None


def test_targets_keep_their_values() -> None:
    assert torch.equal(REGRESSION.targets(torch.tensor([1.5, -2.0]), 1), torch.tensor([[1.5], [-2.0]]))


def test_loss_of_classes_becomes_squared_errors() -> None:
    loss = REGRESSION.default_loss(parse_loss("ce:0.1,kd:0.9,mapall:2"))
    assert loss.weights == {"rse": 0.1, "rsekd": 0.9, "mapall": 2}


@pytest.mark.parametrize("name", ["rse", "rsekd"])
def test_relative_squared_error_has_no_unit(name: str) -> None:
    found = []
    for scale in (1.0, 1e4):
        logits, values = outputs(scale)
        teacher = ModelOutput(values[:, None] if name == "rsekd" else torch.zeros(50, 1))
        variance = float(values.var(correction=0))
        inputs = LossInputs(ModelOutput(logits), teacher, REGRESSION.targets(values, 1), 4.0, target_variance=variance)
        found.append(float(LOSS_TERMS[name].compute(inputs)))
    logits, values = outputs()
    assert found[0] == pytest.approx(1 - r2_score(values, logits[:, 0]), rel=1e-4)
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    same = torch.full((4, 1), 7.0)
    constant = LossInputs(ModelOutput(same), ModelOutput(same), same, 4.0, target_variance=2.0)
    assert float(LOSS_TERMS[name].compute(constant)) == 0
    assert float(LOSS_TERMS[name].compute(replace(constant, student=ModelOutput(same + 1)))) == pytest.approx(0.5)


def test_targets_that_are_mostly_zero_are_learned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    value = np.where(rng.random(300) < 0.9, 0, rng.gamma(2, 50, 300))
    sign = (value > 0) * 3 + rng.normal(size=300)
    lines = [f"{a:.3f},{b:.2f}" for a, b in zip(sign, value, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["a,y", *lines]) + "\n", encoding="utf-8")
    run = kdedge.train(
        tmp_path / "table.csv", "mlp:8", target="y", epochs=6, batch_size=8, output=tmp_path / "run", device="cpu"
    )
    assert run.record.result is not None and run.record.result["best"]["loss"] < 2


def test_device_shows_the_value() -> None:
    task = TASKS["regression"]
    values = np.float32([[12345.678]])
    np.testing.assert_array_equal(task.scores(values, 2.0), values)
    assert task.ranking(values[0], ("price [EUR]",)) == (("price [EUR]", pytest.approx(12345.678)),)
    assert task.share(0.3) is None and task.format_score(12345.678) == "12,346" and task.score_name == "value"


@pytest.mark.parametrize("loss", ["ce:0.1,kd:0.9", "rse:0.1,dist:1"])
def test_terms_of_classes_are_refused(loss: str) -> None:
    """A softmax of one value is constant, so that such terms would teach nothing."""
    request = TrainConfig("rows.csv", "mlp", loss=loss)
    with pytest.raises(UsageError, match="regression"):
        requested_recipe(request, 100, 1, "regression", modality="tabular")
    requested_recipe(request, 100, 2, "classify", modality="tabular")
