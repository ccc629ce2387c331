"""The last layer fitted on frozen features: equal to scikit-learn's logistic regression, with nothing else changed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F
from training_toys import CLASSES, SIDE, Listener, metrics_of, tiny_config, tiny_trainer, write_scenes

from kdedge.losses import LOSS_TERMS
from kdedge.losses.loss_inputs import LossInputs
from kdedge.models.model_registry import build_model, head_tensors
from kdedge.models.model_spec import ModelSpec
from kdedge.training.compute_device import choose_device
from kdedge.training.head_fit import LastLayer, find_last_layer, fit_head, minimize
from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.interruption import StopRequested
from kdedge.training.trainer import Trainer
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.modalities.image import ImageInput

SPEC = ImageInput(SIDE, SIDE, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("head") / "data", train=12, val=4)


def last_layer(trainer: Trainer, name: str = "small:resnet8") -> LastLayer:
    images = trainer.evaluator.val.pixels[:2]
    found = find_last_layer(trainer.train_step.student, head_tensors(name, SIDE), images)
    assert found is not None
    return found


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


class TestLastLayer:
    @pytest.mark.parametrize(
        ("name", "path"),
        [
            ("small:resnet8", "linear"),
            ("torchvision:mobilenet_v3_small", "classifier.3"),
            ("torchvision:efficientnet_b0", "classifier.1"),
            ("timm:mobilenetv3_small_050", "classifier"),
            ("timm:vit_tiny_patch16_224", "head"),
            ("torchvision:squeezenet1_0", None),  # a convolution before ReLU and pooling
        ],
    )
    def test_dense_layer_before_the_logits_is_found(self, name: str, path: str | None) -> None:
        size = 224 if "vit" in name else 64
        spec = replace(SPEC, height=size, width=size)
        student = InstrumentedModel(build_model(ModelSpec(name, 3), size), spec, choose_device("cpu"))
        images = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
        found = find_last_layer(student, head_tensors(name, size), images)
        assert (None if found is None else found.path) == path
        if found is not None:
            assert found.weight is student.model.get_parameter(f"{path}.weight")

    def test_scaled_logits_are_not_of_the_layer(self) -> None:
        model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4), nn.Softmax(1))
        student = InstrumentedModel(model, SPEC, choose_device("cpu"))
        images = torch.randint(0, 256, (2, SIDE, SIDE, 3), dtype=torch.uint8)
        assert find_last_layer(student, ("2.weight", "2.bias"), images) is None


class TestFit:
    @pytest.mark.parametrize("strength", [0.1, 10.0])
    def test_equals_logistic_regression(self, strength: float) -> None:
        """scikit-learn minimizes `C · Σ loss + ‖W‖² / 2`, so its penalty for the mean loss is `1 / (C · N)`."""
        rng = np.random.default_rng(0)
        classes = rng.integers(0, 4, 200)
        features = rng.normal(size=(200, 12)).astype(np.float32) + 0.7 * np.eye(4, 12, dtype=np.float32)[classes]
        reference = LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(features, classes)
        last = LastLayer("", torch.zeros(4, 12, requires_grad=True), torch.zeros(4, requires_grad=True))
        inputs, targets = torch.from_numpy(features), torch.from_numpy(classes)
        minimize(last, lambda: F.cross_entropy(last.logits(inputs), targets), penalty=1 / (strength * 200))
        with torch.no_grad():
            probabilities = last.logits(inputs).softmax(dim=1).numpy()
        assert np.abs(probabilities - reference.predict_proba(features)).max() < 2e-3
        assert last.weight.grad is None

    def test_only_the_last_layer_changes(self, scenes: Path) -> None:
        trainer = tiny_trainer(scenes, tiny_config())
        last, before = last_layer(trainer), snapshot(trainer.train_step.student.model)
        means = fit_head(trainer.train_step, trainer.batches, None, last, {"ce": 1.0})
        after = snapshot(trainer.train_step.student.model)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {"linear.weight", "linear.bias"}
        assert set(means) == {"ce"}
        assert means["ce"] < np.log(len(CLASSES))

    def test_soft_labels_come_from_the_teacher_on_the_same_images(self, scenes: Path) -> None:
        torch.manual_seed(1)
        teacher = build_model(ModelSpec("small:resnet8", len(CLASSES)), SIDE)
        config = tiny_config(loss={"kd": 1.0, "mapall": 20.0})
        trainer = tiny_trainer(scenes, config, teacher=teacher)
        trainer.train_step.student.model.load_state_dict(teacher.state_dict())
        own = trainer.evaluator.teacher
        means = fit_head(trainer.train_step, trainer.batches, own, last_layer(trainer), config.loss)
        assert set(means) == {"kd"}, "maps need more than logits"
        pixels = trainer.batches.samples.pixels
        student = trainer.train_step.predict(pixels, 0).logits.softmax(dim=1)
        target = own(pixels, 0).logits.softmax(dim=1)
        assert float((student - target).abs().max()) < 0.05, "the same features can reproduce the teacher"

    @pytest.mark.parametrize("term", ["kd", "ls", "dkd", "dist"])
    def test_each_term_on_logits_is_minimized(self, scenes: Path, term: str) -> None:
        """DIST is stationary at zero logits, so its fit cannot start there."""
        torch.manual_seed(1)
        teacher = build_model(ModelSpec("small:resnet8", len(CLASSES)), SIDE)
        config = tiny_config(loss={term: 1.0})
        trainer = tiny_trainer(scenes, config, teacher=teacher)
        last, own = last_layer(trainer), trainer.evaluator.teacher
        means = fit_head(trainer.train_step, trainer.batches, own, last, config.loss)
        with torch.no_grad():
            last.weight.zero_()
        images = trainer.batches.samples
        index = torch.arange(len(images))
        blank = trainer.train_step.predict(images.pixels, 0)
        inputs = LossInputs(blank, own(images.pixels, 0), trainer.batches.targets(index), config.temperature)
        assert means[term] < 0.9 * float(LOSS_TERMS[term].compute(inputs))

    def test_weights_that_are_not_finite_are_rejected(self, scenes: Path) -> None:
        trainer = tiny_trainer(scenes, tiny_config())
        with torch.no_grad():
            trainer.train_step.student.model.conv1.weight.fill_(float("nan"))
        with pytest.raises(KdedgeError, match=r"not finite.*--weights"):
            last_layer(trainer)

    def test_loss_of_maps_alone_leaves_the_layer(self, scenes: Path) -> None:
        trainer = tiny_trainer(scenes, tiny_config())
        last = last_layer(trainer)
        before = last.weight.clone()
        assert fit_head(trainer.train_step, trainer.batches, None, last, {"mapall": 20.0}) == {}
        assert torch.equal(last.weight, before)

    @pytest.mark.parametrize("polls", [0, 3])
    def test_stop_request_is_raised_during_features_and_during_the_fit(self, scenes: Path, polls: int) -> None:
        trainer = tiny_trainer(scenes, tiny_config())
        answers = iter([False] * polls)
        with pytest.raises(StopRequested):
            fit_head(
                trainer.train_step, trainer.batches, None, last_layer(trainer), {"ce": 1.0}, lambda: next(answers, True)
            )


class TestFirstEpoch:
    def test_schedule_starts_after_the_first_epoch(self, scenes: Path, tmp_path: Path) -> None:
        config = tiny_config(epochs=3, fit_head=True, warmup_fraction=0.0, learning_rate=0.1)
        trainer = tiny_trainer(scenes, config)
        fitted = Trainer(trainer.train_step, trainer.batches, trainer.evaluator, config, last_layer(trainer))
        fitted.run(tmp_path, Listener(), resume=False)
        first, second, third = metrics_of(tmp_path)
        assert first["lr"] == 0 and first["loss_ce"] > 0
        steps = trainer.batches.per_epoch
        assert second["lr"] == pytest.approx(0.05 * (1 + np.cos(np.pi * (steps - 2) / (2 * steps - 1))), rel=1e-6)
        assert third["lr"] < second["lr"]

    def test_stopped_fit_leaves_a_run_to_resume(self, scenes: Path, tmp_path: Path) -> None:
        config = tiny_config(epochs=2, fit_head=True)
        results = []
        for stop in (True, False):
            trainer = tiny_trainer(scenes, config)
            fitted = Trainer(trainer.train_step, trainer.batches, trainer.evaluator, config, last_layer(trainer))
            folder = tmp_path / str(stop)
            folder.mkdir()
            if stop:
                assert fitted.run(folder, Listener(), resume=False, must_stop=lambda: True) is None
                assert metrics_of(folder) == []
                trainer = tiny_trainer(scenes, config)
                fitted = Trainer(trainer.train_step, trainer.batches, trainer.evaluator, config, last_layer(trainer))
            results.append((fitted.run(folder, Listener(), resume=stop), snapshot(trainer.train_step.student.model)))
        (again, resumed), (once, whole) = results
        assert again is not None and once is not None
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)
