"""Averages of the weights before and after fine-tuning compete with every epoch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_toys import Listener, metrics_of

from kdedge.config.train_config import TrainConfig
from kdedge.data import decode, index_dataset
from kdedge.models.run_folder import BEST, HEAD, LAST, read_run, write_run
from kdedge.models.trained_model import load_trained
from kdedge.tasks import TRAINING_TASKS
from kdedge.training.training_run import continue_run, start_run
from kdedge.training.weight_average import SHARES, average_weights, choose_average
from kdedge_export.modalities import modality_of

MERIT = TRAINING_TASKS["classify"].merit


@pytest.fixture(scope="module")
def tuned(scenes: Path, teacher_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, Path]:
    """Request and run of four epochs from trained weights; read-only."""
    request = TrainConfig(
        str(scenes), "small:resnet8", weights=str(teacher_run / BEST), epochs=4, batch_size=16, lr=0.01
    )
    run = tmp_path_factory.mktemp("tuned") / "run"
    start_run(request, run, Listener(), "cpu")
    return request, run


def weights_of(file: Path) -> dict[str, torch.Tensor]:
    return {name.removeprefix("model."): value for name, value in load_file(file).items() if name.startswith("model.")}


def figures(run: Path, weights: dict[str, torch.Tensor], data: str) -> dict[str, float]:
    """Compute the validation metrics of weights, with plain PyTorch."""
    trained = load_trained(str(run))
    trained.model.load_state_dict(weights)
    val = decode(index_dataset(data).val, trained.input)
    front_end = modality_of(trained.input).front_end(trained.input)
    with torch.no_grad():
        logits = trained.model.eval()(front_end(torch.from_numpy(val.samples)))
    targets = torch.from_numpy(val.targets)
    top1 = float((logits.argmax(dim=1) == targets).float().mean())
    return {"val_top1": top1, "val_loss": float(torch.nn.functional.cross_entropy(logits, targets))}


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_average_is_linear_and_keeps_counters(share: float) -> None:
    first = {"weight": torch.tensor([1.0, -2.0]), "count": torch.tensor(3)}
    last = {"weight": torch.tensor([3.0, 2.0]), "count": torch.tensor(9)}
    found = average_weights(first, last, share)
    assert torch.allclose(found["weight"], torch.tensor([1 + 2 * share, -2 + 4 * share]))
    assert found["count"] == 9


@pytest.mark.parametrize(("values", "expected"), [((0.6, 0.9, 0.8), 0.5), ((0.6, 0.7, 0.7), None)])
def test_best_average_must_be_better_than_the_best_epoch(values: tuple[float, ...], expected: float | None) -> None:
    found = choose_average(
        lambda share: {"average": share, "val_top1": values[SHARES.index(share)]}, MERIT, {"epoch": 2, "val_top1": 0.7}
    )
    assert found.get("average") == expected


def test_best_weights_are_the_best_of_all_epochs_and_averages(tuned: tuple[TrainConfig, Path]) -> None:
    request, run = tuned
    head, last = weights_of(run / HEAD), weights_of(run / LAST)
    averages = {share: figures(run, average_weights(head, last, share), request.data) for share in SHARES}
    best = read_run(run).result["best"]
    candidates = [*map(MERIT, metrics_of(run)), *map(MERIT, averages.values())]
    assert MERIT(best)[0] == max(merit[0] for merit in candidates)
    again = figures(run, weights_of(run / BEST), request.data)
    assert again["val_top1"] == pytest.approx(best["val_top1"])
    assert again["val_loss"] == pytest.approx(best["val_loss"], rel=1e-4)


def test_saved_average_is_that_of_the_record(tuned: tuple[TrainConfig, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    request, run = tuned
    write_run(run, read_run(run).finished(None))  # killed after the last epoch
    monkeypatch.setattr(
        "kdedge.training.trainer.choose_average",
        lambda validate, merit, best: [validate(share) for share in SHARES][1],
    )
    record = continue_run(request, run, Listener(), "cpu")
    assert record.result["best"]["average"] == 0.5 and record.result["best"]["epoch"] == 4
    expected = average_weights(weights_of(run / HEAD), weights_of(run / LAST), 0.5)
    assert all(torch.allclose(value, expected[name]) for name, value in weights_of(run / BEST).items())
    assert "average" not in record.result["last"]


def test_nothing_is_averaged_without_a_fitted_head(teacher_run: Path) -> None:
    assert not (teacher_run / HEAD).exists()
    best: dict[str, Any] = read_run(teacher_run).result["best"]
    assert "average" not in best
