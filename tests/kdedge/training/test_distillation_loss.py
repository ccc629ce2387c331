"""`DistillationLoss` for training loops outside of kdedge, compared with formulas written out in torch."""

import copy
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

import kdedge_export
from kdedge import DistillationLoss
from kdedge_runtime import ImageInput
from kdedge_runtime.errors import UsageError

CLASSES, SIDE, WEIGHTS = 4, 24, {"ce": 0.1, "kd": 0.9, "mapall": 20.0}


def pooled_net(width: int, classes: int = CLASSES) -> nn.Sequential:
    """Classifier with a closed-form head: two convolutions, global average pooling, one dense layer."""
    body = (nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1), nn.ReLU())
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def gridded_net(width: int) -> nn.Sequential:
    """Classifier with a dense layer over positions, whose maps are gradients times activations."""
    body = (nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1), nn.ReLU())
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * width, CLASSES))


def attending_net(width: int) -> VisionTransformer:
    """Vision transformer with a class token, whose maps are gradients times attention."""
    model = VisionTransformer(SIDE, 6, 2, 2, 2 * width, 4 * width, num_classes=CLASSES)
    nn.init.normal_(model.heads[0].weight)
    return model


class Auxiliary(nn.Module):
    """Classifier with a second output in training mode, as GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.net = pooled_net(6)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits = self.net(x)
        return (logits, logits) if self.training else logits


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    samples = torch.randn(6, 3, SIDE, SIDE, generator=generator)
    return samples, torch.randint(CLASSES, (6,), generator=generator)


def activation_maps(model: nn.Sequential, samples: Tensor) -> Tensor:
    """Class activation maps by their definition, `[N, K, h, w]` (Zhou et al., 2016)."""
    dense = model[-1]
    assert isinstance(dense, nn.Linear)
    return torch.einsum("nchw,kc->nkhw", model[:4](samples), dense.weight)


def test_terms_equal_their_formulas(batch: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    student, teacher = pooled_net(6), pooled_net(12)
    samples, targets = batch
    output = DistillationLoss(student, teacher, samples[:1], temperature=3.0)(samples, targets)
    ours, theirs = student(samples), teacher(samples)
    soft = (theirs / 3).softmax(1)
    pairs = [
        (mine.flatten(2) - mine.flatten(2).mean(2, keepdim=True))
        for mine in (activation_maps(student, samples), activation_maps(teacher, samples))
    ]
    distance = 1 - F.cosine_similarity(*pairs, dim=2)
    expected = {
        "ce": F.cross_entropy(ours, targets),
        "kd": 9 * (soft * (soft.log() - (ours / 3).log_softmax(1))).sum(1).mean(),
        "mapall": (soft * distance).sum(1).mean(),
    }
    assert output.terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(output.terms[name], value.detach(), rtol=1e-4, atol=1e-6)
    total = sum(WEIGHTS[name] * value for name, value in expected.items())
    torch.testing.assert_close(output.loss, total, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(output.logits, ours)
    ours_gradients = torch.autograd.grad(total, [*student.parameters()])
    output.loss.backward()
    for parameter, expected_gradient in zip(student.parameters(), ours_gradients, strict=True):
        torch.testing.assert_close(parameter.grad, expected_gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("make", [pooled_net, gridded_net, attending_net])
def test_map_term_is_zero_for_a_copy_and_decreases(
    make: Callable[[int], nn.Module], batch: tuple[Tensor, Tensor]
) -> None:
    torch.manual_seed(1)
    teacher, student, samples = make(8), make(8), batch[0]
    same = DistillationLoss(copy.deepcopy(teacher), teacher, samples[:1], "mapall:1")(samples)
    assert same.loss.item() == pytest.approx(0, abs=1e-5)
    criterion = DistillationLoss(student, teacher, samples[:1], "mapall:1")
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    values = []
    for _ in range(25):
        output = criterion(samples)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(output.loss.item())
    assert values[-1] < 0.6 * values[0]


@pytest.mark.parametrize("make", [pooled_net, gridded_net, attending_net])
def test_labels_are_learned_next_to_maps(make: Callable[[int], nn.Module], batch: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(1)
    student, teacher = make(8), pooled_net(8)
    criterion = DistillationLoss(student, teacher, batch[0][:1], "ce:1,mapall:0.001")
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    values = []
    for _ in range(40):
        output = criterion(*batch)
        output.loss.backward()
        assert all(parameter.grad is not None for parameter in student.parameters())
        optimizer.step()
        optimizer.zero_grad()
        values.append(output.terms["ce"].item())
    assert values[-1] < 0.5 * values[0]


def test_student_is_copied_saved_and_exported_between_steps(batch: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    student, teacher = pooled_net(6), pooled_net(6)
    names = list(student.state_dict())
    criteria = [DistillationLoss(student, teacher, batch[0][:1]) for _ in range(2)]
    expected = criteria[0](*batch).loss.item()
    assert list(student.state_dict()) == names
    assert not any(module._forward_hooks for module in (*student.modules(), *teacher.modules()))
    saved = io.BytesIO()
    torch.save(student, saved)
    assert copy.deepcopy(criteria[0])(*batch).loss.item() == pytest.approx(expected)
    spec = ImageInput(SIDE, SIDE, (0.5,) * 3, (0.25,) * 3)
    kdedge_export.export(student, spec, tuple("abcd"), tmp_path / "student.onnx")
    assert student.training and not any(module._forward_hooks for module in student.modules())
    criteria[1](*batch).loss.backward()
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_teacher_stays_in_evaluation_mode(batch: tuple[Tensor, Tensor]) -> None:
    teacher = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), *pooled_net(8)[4:])
    criterion = DistillationLoss(pooled_net(6), teacher, batch[0][:1])
    before = copy.deepcopy(teacher.state_dict())
    teacher.train()
    criterion(*batch)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_teacher_is_frozen_and_the_mode_of_the_student_is_kept(batch: tuple[Tensor, Tensor]) -> None:
    student, teacher = pooled_net(6), pooled_net(6).train()
    before = copy.deepcopy(teacher.state_dict())
    student.eval()
    DistillationLoss(student, teacher, batch[0][:1])(*batch).loss.backward()
    assert not student.training and not teacher.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert DistillationLoss(student.train(), teacher, batch[0][:1]) and student.training


def test_targets_are_classes_or_distributions(batch: tuple[Tensor, Tensor]) -> None:
    samples, targets = batch
    criterion = DistillationLoss(pooled_net(6), pooled_net(6), samples[:1], "ce:1,kd:1")
    of_classes = criterion(samples, targets).loss
    torch.testing.assert_close(criterion(samples, F.one_hot(targets, CLASSES).double()).loss, of_classes)
    with pytest.raises(UsageError, match="term ce needs labels"):
        criterion(samples)


@pytest.mark.parametrize(
    "targets",
    [
        torch.zeros(6),
        torch.zeros(6, 1, dtype=torch.int64),
        torch.zeros(6, dtype=torch.bool),
        torch.full((6,), CLASSES),
        torch.full((6,), -100),
    ],
    ids=["float classes", "column", "flags", "no class", "ignored"],
)
def test_targets_of_another_form_are_rejected(batch: tuple[Tensor, Tensor], targets: Tensor) -> None:
    criterion = DistillationLoss(pooled_net(6), pooled_net(6), batch[0][:1])
    with pytest.raises(UsageError, match=r"Expected (integer|numbers)"):
        criterion(batch[0], targets)
    assert criterion(batch[0], batch[1].to(torch.uint8)).loss.isfinite()


@pytest.mark.parametrize("make", [pooled_net, gridded_net, attending_net])
def test_mixed_precision_keeps_terms_in_float32(make: Callable[[int], nn.Module], batch: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(2)
    criterion = DistillationLoss(make(6), make(6), batch[0][:1])
    exact = criterion(*batch).loss
    with torch.autocast("cpu", torch.bfloat16):
        rounded = criterion(*batch).loss
    rounded.backward()
    assert rounded.dtype == torch.float32 and rounded.item() == pytest.approx(exact.item(), rel=0.05)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("ce,hint:1", "hint"),
        ("rse,kd", "rse"),
        ("ce,cat", "cat:WEIGHT"),
        ("ce,maps", "Did you mean"),
    ],
)
def test_loss_that_cannot_be_computed_is_rejected(loss: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DistillationLoss(pooled_net(6), pooled_net(6), torch.zeros(1, 3, SIDE, SIDE), loss)


def test_models_that_do_not_fit_are_rejected() -> None:
    example = torch.zeros(1, 3, SIDE, SIDE)
    with pytest.raises(UsageError, match="same classes"):
        DistillationLoss(pooled_net(6), pooled_net(6, classes=5), example)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, CLASSES))
    with pytest.raises(UsageError, match="the student has none"):
        DistillationLoss(flat, pooled_net(6), example)
    assert DistillationLoss(flat, pooled_net(6), example, "ce,kd")(example, torch.tensor([1])).loss > 0
    for temperature in (0.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="temperature"):
            DistillationLoss(pooled_net(6), pooled_net(6), example, temperature=temperature)
    shared, teacher = pooled_net(6), pooled_net(6)
    with pytest.raises(UsageError, match="share parameters"):
        DistillationLoss(shared, nn.Sequential(*shared[:6], nn.Linear(6, CLASSES)), example)
    with pytest.raises(UsageError):
        DistillationLoss(pooled_net(6, classes=5), teacher, example)
    assert all(parameter.requires_grad for parameter in teacher.parameters()), "a rejected teacher is unchanged"
    with pytest.raises(UsageError, match="returns tuple in training mode"):
        DistillationLoss(Auxiliary(), teacher, example)(example, torch.tensor([1]))
