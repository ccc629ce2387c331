"""Loss terms, compared with plain loops in float64 and with manually computed values."""

import inspect
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.losses import LOSS_TERMS
from kdedge.losses.all_class_maps import MOST_PROBABLE
from kdedge.losses.loss_inputs import LossInputs, ModelOutput
from kdedge.losses.map_distance import match_spatial_size, pearson
from kdedge.training.distributed import ProcessGroup
from kdedge.training.objective import Objective

MAP_TERMS = [name for name, term in LOSS_TERMS.items() if term.map_classes]


def term(name: str, inputs: LossInputs, **settings: float) -> Tensor:
    return LOSS_TERMS[name].compute(inputs, **settings)


def random_inputs(
    classes: int = 5,
    student_positions: tuple[int, int] = (6, 6),
    teacher_positions: tuple[int, int] = (6, 6),
    temperature: float = 4.0,
    batch: int = 3,
) -> LossInputs:
    """Build a batch with maps of all classes, the teacher's most probable ones first."""
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(2, batch, classes, generator=generator)
    order = logits[1].argsort(dim=1, descending=True)

    def prediction(logits: Tensor, positions: tuple[int, int], channels: int) -> ModelOutput:
        maps = torch.randn(batch, classes, *positions, generator=generator)
        features = tuple(torch.randn(batch, channels, side, side, generator=generator) for side in (8, 4))
        return ModelOutput(logits, order, maps, features)

    targets = torch.randint(classes, (batch,), generator=generator)
    student, teacher = prediction(logits[0], student_positions, 7), prediction(logits[1], teacher_positions, 4)
    projected = tuple(torch.randn(batch, 4, side, side, generator=generator) for side in (8, 4))
    return LossInputs(student, teacher, F.one_hot(targets, classes).float(), temperature, projected)


def inputs_of_logits(student: Tensor, teacher: Tensor, temperature: float = 1.0, target: int = 0) -> LossInputs:
    targets = F.one_hot(torch.full((len(student),), target), student.shape[1]).float()
    return LossInputs(ModelOutput(student), ModelOutput(teacher), targets, temperature)


def inputs_of_maps(student: Tensor, teacher: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> LossInputs:
    """Build a batch of one with given maps `[K, h, w]`, the teacher's most probable class first."""
    order = teacher_logits.argsort(descending=True, stable=True)[None]
    ours = ModelOutput(torch.zeros(1, len(student)), order, student[order[0]][None])
    theirs = ModelOutput(teacher_logits[None], order, teacher[order[0]][None])
    return LossInputs(ours, theirs, torch.eye(len(student))[:1], temperature)


# ---- independent implementation: plain loops over plain numbers


def softmax_by_hand(values: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp((value - max(values)) / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def kl_by_hand(teacher: list[float], student: list[float]) -> float:
    return sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True))


def rows(values: Tensor) -> list[list[float]]:
    return values.detach().double().tolist()


def logits_of(inputs: LossInputs) -> list[tuple[list[float], list[float], int]]:
    """Return student logits, teacher logits and ground-truth class of every image."""
    right = inputs.targets.argmax(dim=1).tolist()
    return list(zip(rows(inputs.student.logits), rows(inputs.teacher_output.logits), right, strict=True))


def pooled_by_hand(positions: np.ndarray, height: int, width: int) -> np.ndarray:
    """Compute the mean of the positions that each new position covers at least partly."""
    rows, columns = positions.shape
    result = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            top, bottom = math.floor(i * rows / height), math.ceil((i + 1) * rows / height)
            left, right = math.floor(j * columns / width), math.ceil((j + 1) * columns / width)
            result[i, j] = positions[top:bottom, left:right].mean()
    return result


def maps_by_hand(inputs: LossInputs, image: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both maps of the teacher's `rank`-th class, pooled to the smaller size."""
    assert inputs.student.maps is not None and inputs.teacher_output.maps is not None
    student, teacher = (
        prediction.maps[image, rank].double().numpy() for prediction in (inputs.student, inputs.teacher_output)
    )
    height, width = min(student.shape[0], teacher.shape[0]), min(student.shape[1], teacher.shape[1])
    return pooled_by_hand(student, height, width), pooled_by_hand(teacher, height, width)


def disagreement_by_hand(inputs: LossInputs, image: int, rank: int) -> float:
    student, teacher = maps_by_hand(inputs, image, rank)
    return 1 - float(np.corrcoef(student.ravel(), teacher.ravel())[0, 1])


class TestCrossEntropy:
    def test_equals_the_plain_sum(self) -> None:
        inputs = random_inputs()
        expected = [-math.log(softmax_by_hand(ours)[right]) for ours, _, right in logits_of(inputs)]
        assert term("ce", inputs).item() == pytest.approx(np.mean(expected), rel=1e-5)

    def test_mixed_label_has_the_mixed_loss(self) -> None:
        inputs = random_inputs(batch=1)
        alone = [term("ce", replace(inputs, targets=torch.eye(5)[[label]])).item() for label in (1, 3)]
        mixed = replace(inputs, targets=0.3 * torch.eye(5)[[1]] + 0.7 * torch.eye(5)[[3]])
        assert term("ce", mixed).item() == pytest.approx(0.3 * alone[0] + 0.7 * alone[1], rel=1e-5)

    def test_uniform_prediction_of_four_classes_has_loss_log_4(self) -> None:
        inputs = LossInputs(ModelOutput(torch.zeros(2, 4)), None, torch.eye(4)[[1, 3]], 1.0)
        assert term("ce", inputs).item() == pytest.approx(math.log(4))


class TestSoftLabels:
    @pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
    def test_equals_the_plain_sum(self, temperature: float) -> None:
        inputs = random_inputs(temperature=temperature)
        expected = [
            kl_by_hand(softmax_by_hand(theirs, temperature), softmax_by_hand(ours, temperature))
            for ours, theirs, _ in logits_of(inputs)
        ]
        assert term("kd", inputs).item() == pytest.approx(temperature**2 * np.mean(expected), rel=1e-4)

    def test_value_for_a_3_to_1_teacher_and_a_uniform_student(self) -> None:
        inputs = inputs_of_logits(torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]]))
        assert term("kd", inputs).item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-6)

    @pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
    def test_gradient_is_the_temperature_times_the_probability_difference(self, temperature: float) -> None:
        inputs = random_inputs(temperature=temperature)
        inputs.student.logits.requires_grad_()
        term("kd", inputs).backward()
        assert inputs.student.logits.grad is not None
        for image, (ours, theirs, _) in enumerate(logits_of(inputs)):
            student, teacher = softmax_by_hand(ours, temperature), softmax_by_hand(theirs, temperature)
            expected = [temperature * (q - p) / 3 for p, q in zip(teacher, student, strict=True)]
            assert inputs.student.logits.grad[image].tolist() == pytest.approx(expected, abs=1e-5)

    def test_gradient_is_nearly_independent_of_high_temperatures(self) -> None:
        """Hinton et al. 2015, §2.1: the limit is the difference of the centered logits, divided by their number."""
        sizes = []
        for temperature in (50.0, 100.0):
            inputs = random_inputs(temperature=temperature)
            inputs.student.logits.requires_grad_()
            term("kd", inputs).backward()
            assert inputs.student.logits.grad is not None
            sizes.append(inputs.student.logits.grad)
        difference = inputs.student.logits.detach() - inputs.teacher_output.logits
        limit = (difference - difference.mean(dim=1, keepdim=True)) / (3 * 5)
        assert torch.allclose(sizes[1], limit, atol=0.03 * limit.abs().max().item())
        assert torch.allclose(sizes[0], sizes[1], atol=0.06 * limit.abs().max().item())


class TestStandardisedSoftLabels:
    @pytest.mark.parametrize("base_temperature", [2.0, 3.0])
    def test_equals_the_plain_sum(self, base_temperature: float) -> None:
        inputs = random_inputs(7)

        def standardised(values: list[float]) -> list[float]:
            return ((np.array(values) - np.mean(values)) / np.std(values, ddof=1)).tolist()

        expected = [
            kl_by_hand(
                softmax_by_hand(standardised(theirs), base_temperature),
                softmax_by_hand(standardised(ours), base_temperature),
            )
            for ours, theirs, _ in logits_of(inputs)
        ]
        value = term("ls", inputs, base_temperature=base_temperature).item()
        assert value == pytest.approx(base_temperature**2 * np.mean(expected), rel=1e-4)

    def test_invariant_to_scale_and_offset_of_logits(self) -> None:
        inputs = random_inputs()
        moved = replace(
            inputs,
            student=ModelOutput(5 * inputs.student.logits - 2),
            teacher=ModelOutput(inputs.teacher_output.logits / 3 + 1),
        )
        assert term("ls", moved).item() == pytest.approx(term("ls", inputs).item(), rel=1e-4)

    def test_equal_logits_have_a_finite_gradient(self) -> None:
        student = torch.zeros(2, 4, requires_grad=True)
        term("ls", inputs_of_logits(student, torch.randn(2, 4))).backward()
        assert student.grad is not None and student.grad.isfinite().all()


class TestDecoupledSoftLabels:
    def by_hand(self, inputs: LossInputs, others: float) -> float:
        total, temperature = 0.0, inputs.temperature
        for ours, theirs, right in logits_of(inputs):
            student, teacher = softmax_by_hand(ours, temperature), softmax_by_hand(theirs, temperature)
            confidence = kl_by_hand([teacher[right], 1 - teacher[right]], [student[right], 1 - student[right]])
            rest = [label for label in range(len(ours)) if label != right]
            ranking = kl_by_hand(
                softmax_by_hand([theirs[label] for label in rest], temperature),
                softmax_by_hand([ours[label] for label in rest], temperature),
            )
            total += confidence + others * ranking
        return temperature**2 * total / len(inputs.targets)

    @pytest.mark.parametrize("temperature", [1.0, 4.0])
    @pytest.mark.parametrize("others", [2.0, 8.0])
    def test_equals_the_plain_sum(self, temperature: float, others: float) -> None:
        inputs = random_inputs(temperature=temperature)
        assert term("dkd", inputs, others=others).item() == pytest.approx(self.by_hand(inputs, others), rel=1e-4)

    def test_classes_without_images_are_supported(self) -> None:
        inputs = random_inputs()
        inputs = replace(inputs, targets=torch.eye(5)[[0, 2, 0]])
        assert term("dkd", inputs).item() == pytest.approx(self.by_hand(inputs, 8.0), rel=1e-4)

    def test_equals_kd_with_the_teachers_non_target_weight(self) -> None:
        """Zhao et al. 2022, eq. 5: KD = TCKD + (1 - p_T(y)) NCKD."""
        inputs = random_inputs(batch=1)
        (_, theirs, right) = logits_of(inputs)[0]
        left = 1 - softmax_by_hand(theirs, inputs.temperature)[right]
        assert term("dkd", inputs, others=left).item() == pytest.approx(term("kd", inputs).item(), rel=1e-4)

    def test_gradient_is_finite_for_a_confident_student(self) -> None:
        student = torch.tensor([[80.0, -80.0, 0.0]], requires_grad=True)
        term("dkd", inputs_of_logits(student, torch.tensor([[1.0, 2.0, 3.0]]))).backward()
        assert student.grad is not None and student.grad.isfinite().all()


class TestRelations:
    @pytest.mark.parametrize("temperature", [1.0, 4.0])
    def test_equals_numpy_correlations(self, temperature: float) -> None:
        inputs = random_inputs(6, temperature=temperature, batch=8)
        ours = np.array([softmax_by_hand(row, temperature) for row in rows(inputs.student.logits)])
        theirs = np.array([softmax_by_hand(row, temperature) for row in rows(inputs.teacher_output.logits)])

        def mean_correlation(a: np.ndarray, b: np.ndarray) -> float:
            return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]))

        expected = temperature**2 * (2 - mean_correlation(ours, theirs) - mean_correlation(ours.T, theirs.T))
        assert term("dist", inputs).item() == pytest.approx(expected, rel=1e-4)

    def test_depends_on_the_batch(self) -> None:
        inputs = random_inputs(batch=8)
        halves = [
            replace(
                inputs,
                student=ModelOutput(inputs.student.logits[part]),
                teacher=ModelOutput(inputs.teacher_output.logits[part]),
            )
            for part in (slice(0, 4), slice(4, 8))
        ]
        apart = sum(term("dist", half).item() for half in halves) / 2
        assert abs(apart - term("dist", inputs).item()) > 1e-3
        assert LOSS_TERMS["dist"].whole_batch


class TestAttentionTransfer:
    def test_equals_the_plain_sum(self) -> None:
        inputs = random_inputs()
        expected = 0.0
        for ours, theirs in zip(inputs.student.features, inputs.teacher_output.features, strict=True):
            squares = []
            for a, b in zip(ours.double().numpy(), theirs.double().numpy(), strict=True):
                qa, qb = (np.mean(x**2, axis=0).ravel() for x in (a, b))
                squares.append((qa / np.linalg.norm(qa) - qb / np.linalg.norm(qb)) ** 2)
            expected += float(np.mean(squares))
        assert term("at", inputs).item() == pytest.approx(expected, rel=1e-4)

    def test_invariant_to_number_and_scale_of_channels(self) -> None:
        features = torch.randn(2, 3, 5, 5)
        inputs = random_inputs()
        twice = replace(
            inputs,
            student=ModelOutput(inputs.student.logits, features=(features,)),
            teacher=ModelOutput(inputs.teacher_output.logits, features=(7 * features.repeat(1, 2, 1, 1),)),
        )
        assert term("at", twice).item() == pytest.approx(0, abs=1e-10)


class TestHints:
    def test_equals_the_mean_square_over_layers(self) -> None:
        inputs = random_inputs()
        expected = np.mean(
            [
                float(np.mean((ours.double().numpy() - theirs.double().numpy()) ** 2))
                for ours, theirs in zip(inputs.projected, inputs.teacher_output.features, strict=True)
            ]
        )
        assert term("hint", inputs).item() == pytest.approx(expected, rel=1e-5)

    def test_larger_features_are_average_pooled(self) -> None:
        inputs = random_inputs()
        ours, theirs = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 4, 4)
        inputs = replace(
            inputs, projected=(ours,), teacher=ModelOutput(inputs.teacher_output.logits, features=(theirs,))
        )
        pooled = ours.reshape(3, 4, 4, 2, 4, 2).mean(dim=(3, 5))
        assert term("hint", inputs).item() == pytest.approx((pooled - theirs).square().mean().item(), rel=1e-5)


class TestTopClassMap:
    def test_compares_maps_of_the_teachers_top_class(self) -> None:
        inputs = random_inputs()
        expected = [disagreement_by_hand(inputs, image, 0) for image in range(3)]
        assert term("map", inputs).item() == pytest.approx(np.mean(expected), abs=1e-5)

    def test_independent_of_other_classes(self) -> None:
        maps = torch.randn(3, 4, 4)
        inputs = inputs_of_maps(maps, torch.stack([maps[0], -maps[1], -maps[2]]), torch.tensor([2.0, 1.0, 0.0]))
        assert term("map", inputs).item() == pytest.approx(0, abs=1e-6)


class TestAllClassMaps:
    @pytest.mark.parametrize("classes", [2, 5, MOST_PROBABLE])
    @pytest.mark.parametrize("temperature", [1.0, 4.0])
    def test_equals_the_weighted_sum_over_all_classes(self, classes: int, temperature: float) -> None:
        inputs = random_inputs(classes, temperature=temperature)
        expected = 0.0
        for image, row in enumerate(rows(inputs.teacher_output.logits)):
            outputs = sorted(softmax_by_hand(row, temperature), reverse=True)
            expected += sum(p * disagreement_by_hand(inputs, image, rank) for rank, p in enumerate(outputs))
        assert term("mapall", inputs).item() == pytest.approx(expected / 3, abs=1e-5)

    @pytest.mark.parametrize("kept", [1, 4])
    def test_only_the_most_probable_classes_are_used(self, kept: int) -> None:
        inputs = random_inputs(9)
        expected = 0.0
        for image, row in enumerate(rows(inputs.teacher_output.logits)):
            outputs = softmax_by_hand(sorted(row, reverse=True)[:kept], inputs.temperature)
            expected += sum(p * disagreement_by_hand(inputs, image, rank) for rank, p in enumerate(outputs))
        assert term("mapall", inputs, classes=kept).item() == pytest.approx(expected / 3, abs=1e-5)

    def test_value_for_one_equal_and_one_opposed_map(self) -> None:
        maps = torch.randn(2, 5, 5)
        inputs = inputs_of_maps(maps, torch.stack([maps[0], -maps[1]]), torch.tensor([math.log(3.0), 0.0]))
        assert term("mapall", inputs).item() == pytest.approx(0.75 * 0 + 0.25 * 2, abs=1e-5)

    def test_higher_temperature_increases_the_weight_of_unlikely_classes(self) -> None:
        maps = torch.randn(2, 5, 5)
        inputs = inputs_of_maps(maps, torch.stack([maps[0], -maps[1]]), torch.tensor([math.log(9.0), 0.0]), 2.0)
        assert term("mapall", inputs).item() == pytest.approx(0.25 * 2, abs=1e-5)  # the square root of 9 is 3


class TestRectifiedMap:
    def test_equals_one_minus_the_cosine_of_positive_parts(self) -> None:
        inputs = random_inputs()
        expected = []
        for image in range(3):
            ours, theirs = (np.maximum(positions, 0).ravel() for positions in maps_by_hand(inputs, image, 0))
            expected.append(1 - ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))
        assert term("e2", inputs).item() == pytest.approx(np.mean(expected), abs=1e-5)

    @pytest.mark.parametrize("scale", [1e-3, 1e3])
    def test_invariant_to_scale_of_maps(self, scale: float) -> None:
        student, teacher = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(3))
        expected = term("e2", inputs_of_maps(student, teacher, torch.zeros(3))).item()
        assert term("e2", inputs_of_maps(scale * student, teacher, torch.zeros(3))).item() == pytest.approx(expected)
        assert term("e2", inputs_of_maps(student, scale * teacher, torch.zeros(3))).item() == pytest.approx(expected)

    def test_map_without_positive_values_has_loss_1_and_no_gradient(self) -> None:
        """Property of `e2` that `map` does not have."""
        student = -torch.rand(2, 6, 6) - 0.1
        student.requires_grad_()
        loss = term("e2", inputs_of_maps(student, torch.rand(2, 6, 6), torch.zeros(2)))
        loss.backward()
        assert loss.item() == pytest.approx(1)
        assert student.grad is not None and student.grad.abs().max() == 0


class TestClassAttentionTransfer:
    @pytest.mark.parametrize("positions", [2, 3, 6])
    def test_equals_the_plain_sum_over_all_classes(self, positions: int) -> None:
        inputs = random_inputs()
        squares = []
        for image in range(3):
            for rank in range(5):
                ours, theirs = (pooled_by_hand(one, positions, positions) for one in maps_by_hand(inputs, image, rank))
                squares.append((ours / np.linalg.norm(ours) - theirs / np.linalg.norm(theirs)) ** 2)
        assert term("cat", inputs, positions=positions).item() == pytest.approx(float(np.mean(squares)), rel=1e-4)

    def test_depends_on_an_offset_unlike_centered_terms(self) -> None:
        maps = torch.randn(3, 6, 6)
        inputs = inputs_of_maps(maps, maps + 5, torch.zeros(3))
        assert term("mapall", inputs).item() == pytest.approx(0, abs=1e-4)
        assert term("cat", inputs).item() > 1e-3


@pytest.mark.parametrize("name", ["map", "mapall"])
class TestCentredMaps:
    @pytest.mark.parametrize(
        ("student_positions", "teacher_positions"),
        [((4, 4), (8, 8)), ((8, 8), (4, 4)), ((6, 6), (4, 4)), ((7, 7), (3, 3)), ((4, 8), (8, 6))],
        ids=str,
    )
    def test_maps_are_pooled_to_the_smaller_size(
        self, name: str, student_positions: tuple[int, int], teacher_positions: tuple[int, int]
    ) -> None:
        inputs = random_inputs(4, student_positions, teacher_positions)
        expected = 0.0
        for image, row in enumerate(rows(inputs.teacher_output.logits)):
            outputs = sorted(softmax_by_hand(row, 4.0), reverse=True) if name == "mapall" else [1.0]
            expected += sum(p * disagreement_by_hand(inputs, image, rank) for rank, p in enumerate(outputs))
        assert term(name, inputs).item() == pytest.approx(expected / 3, abs=1e-5)

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
    @pytest.mark.parametrize("offset", [-5.0, 0.0, 5.0])
    def test_invariant_to_scale_and_offset_of_maps(self, name: str, scale: float, offset: float) -> None:
        generator = torch.Generator().manual_seed(1)
        student, teacher = torch.randn(2, 3, 6, 6, generator=generator)
        logits = torch.tensor([1.0, 0.5, 0.0])
        expected = term(name, inputs_of_maps(student, teacher, logits)).item()
        moved = term(name, inputs_of_maps(scale * (student + offset), teacher, logits)).item()
        assert moved == pytest.approx(expected, abs=1e-4)
        moved = term(name, inputs_of_maps(student, scale * (teacher + offset), logits)).item()
        assert moved == pytest.approx(expected, abs=1e-4)

    def test_ranges_from_0_for_equal_to_2_for_opposed_maps(self, name: str) -> None:
        maps, logits = torch.randn(3, 6, 6), torch.zeros(3)
        assert term(name, inputs_of_maps(maps, maps, logits)).item() == pytest.approx(0, abs=1e-5)
        assert term(name, inputs_of_maps(-maps, maps, logits)).item() == pytest.approx(2, abs=1e-5)

    def test_negative_map_has_a_gradient(self, name: str) -> None:
        """A rectified map would be all zero, with a zero gradient."""
        generator = torch.Generator().manual_seed(2)
        student = (-1 - torch.rand(3, 6, 6, generator=generator)).requires_grad_()
        teacher = torch.rand(3, 6, 6, generator=generator)
        term(name, inputs_of_maps(student, teacher, torch.tensor([2.0, 0.0, 0.0]))).backward()
        assert student.grad is not None and student.grad.isfinite().all()
        assert student.grad[0].abs().max() > 1e-3


@pytest.mark.parametrize("name", MAP_TERMS)
class TestAnyMapTerm:
    @pytest.mark.parametrize("constant", [0.0, 1.0])
    def test_gradient_of_a_constant_map_is_finite(self, name: str, constant: float) -> None:
        student = torch.full((2, 6, 6), constant).requires_grad_()
        loss = term(name, inputs_of_maps(student, torch.randn(2, 6, 6), torch.zeros(2)))
        loss.backward()
        assert loss.isfinite()
        assert student.grad is not None and student.grad.isfinite().all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", sorted(LOSS_TERMS))
class TestAnyTerm:
    def test_defaults_are_in_the_table_of_terms(self, name: str) -> None:
        inputs = random_inputs(9)
        assert term(name, inputs).item() == term(name, inputs, **LOSS_TERMS[name].settings).item()

    def test_loss_and_student_gradient_are_finite(self, name: str) -> None:
        inputs = random_inputs()
        student = inputs.student
        assert student.maps is not None
        learned = [student.logits, student.maps, *student.features, *inputs.projected]
        for value in learned:
            value.requires_grad_()
        loss = term(name, inputs)
        assert loss.shape == () and loss.isfinite() and loss.dtype == torch.float32
        loss.backward()
        gradients = [value.grad for value in learned if value.grad is not None]
        assert gradients and all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.abs().max() > 0 for gradient in gradients)

    def test_equal_outputs_have_no_gradient(self, name: str) -> None:
        inputs = random_inputs()
        alike = replace(inputs, student=inputs.teacher_output, projected=inputs.teacher_output.features)
        nothing = term(name, alike).item() == pytest.approx(0, abs=1e-5)
        assert nothing == (name != "ce"), "ground-truth labels are independent of the teacher"

    def test_docstring_and_module(self, name: str) -> None:
        """Define each loss in one module; its docstring states shapes, source and default weight."""
        compute, weight = LOSS_TERMS[name].compute, LOSS_TERMS[name].weight
        others = {inspect.getsourcefile(term.compute) for other, term in LOSS_TERMS.items() if other != name}
        assert inspect.getsourcefile(compute) not in others
        text = " ".join(inspect.getdoc(compute).split())
        assert "Shapes: " in text and "Source: " in text and "`[N, " in text
        assert f"Default weight: {'measured' if weight is None else f'{weight:g}'}" in text

    def test_settings_are_positive(self, name: str) -> None:
        assert all(value > 0 for value in LOSS_TERMS[name].settings.values())

    def test_terms_that_need_a_teacher_are_marked(self, name: str) -> None:
        inputs = replace(random_inputs(), teacher=None)
        if LOSS_TERMS[name].needs_teacher:
            with pytest.raises(AssertionError):
                term(name, inputs)
        else:
            assert term(name, inputs).isfinite()

    def test_terms_that_use_the_temperature_are_marked(self, name: str) -> None:
        inputs = random_inputs()
        values = {round(term(name, replace(inputs, temperature=t)).item(), 6) for t in (1.0, 4.0)}
        assert (len(values) == 2) == LOSS_TERMS[name].uses_temperature


class TestDistance:
    def test_pearson_of_a_manual_example(self) -> None:
        a, b = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2.0, 1.0, 4.0, 3.0])
        assert pearson(a, b).item() == pytest.approx(3 / 5)  # deviations ∓1.5, ∓0.5 against ∓0.5, ∓1.5

    @pytest.mark.parametrize(("one", "other"), [(0.1, 0.3), (1000.1, 0.7), (0.0, 0.3), (0.1, -0.3), (3.3, 0.7)])
    def test_constant_rows_have_zero_correlation(self, one: float, other: float) -> None:
        """Their float32 mean differs from their value by rounding."""
        constant, another, varying = torch.full((49,), one), torch.full((49,), other), torch.randn(49)
        assert pearson(constant, another) == pearson(constant, varying) == pearson(varying, constant) == 0.0

    def test_small_variation_of_a_large_value_is_kept(self) -> None:
        varying = torch.linspace(-1, 1, 49)
        assert pearson(varying, 100 + 0.1 * varying).item() == pytest.approx(1.0, abs=1e-4)

    def test_constant_row_has_a_finite_gradient(self) -> None:
        constant = torch.full((2, 49), 1000.1, requires_grad=True)
        pearson(constant, torch.randn(2, 49)).sum().backward()
        assert constant.grad is not None and constant.grad.isfinite().all()

    def test_rows_are_independent(self) -> None:
        constants = [torch.full((49,), value) for value in (0.1, 0.7, 3.3, 1000.1)]
        small, large = 1e-3 * torch.linspace(-1, 1, 49), 1e6 * torch.randn(49)
        a, b = torch.stack([*constants, small, large]), torch.stack([*[small] * 4, small, large])
        assert pearson(a, b).tolist() == pytest.approx([0, 0, 0, 0, 1, 1], abs=1e-6)
        assert pearson(b, a).tolist() == pytest.approx([0, 0, 0, 0, 1, 1], abs=1e-6)
        # Rounding leaves the same small remainder at all positions, which would correlate.
        a, b = torch.stack([*constants[1:], large]), torch.stack([*constants[2:], constants[1], large])
        assert pearson(a, b).tolist() == pytest.approx([0, 0, 0, 1], abs=1e-6)

    def test_maps_of_equal_size_are_unchanged(self) -> None:
        a, b = torch.randn(2, 3, 5, 5), torch.randn(2, 3, 5, 5)
        assert all(x is y for x, y in zip(match_spatial_size(a, b), (a, b), strict=True))


@pytest.mark.parametrize("name", ["at", "hint"])
def test_unpaired_layer_is_an_error(name: str) -> None:
    inputs = random_inputs()
    fewer = replace(inputs.teacher_output, features=inputs.teacher_output.features[:1])
    with pytest.raises(ValueError, match="zip"):
        term(name, replace(inputs, teacher=fewer))


@dataclass(frozen=True)
class WithPartner(ProcessGroup):
    """Group of two processes, where the other one holds the second half of a batch."""

    size: int = 2
    others: tuple[Tensor, ...] = ()

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of both processes."""
        (partner,) = (whole[len(rows) :] for whole in self.others if torch.equal(whole[: len(rows)], rows))
        return torch.cat([rows, partner])


class TestObjective:
    SETTINGS: ClassVar = {"ce": {}, "dkd": {"others": 2.0}, "dist": {}, "map": {}, "kd": {}}

    def test_values_are_in_the_order_of_terms(self) -> None:
        inputs = random_inputs(6)
        values = Objective(self.SETTINGS).values(inputs, ProcessGroup())
        expected = [term(name, inputs, **settings).item() for name, settings in self.SETTINGS.items()]
        assert values.tolist() == pytest.approx(expected, rel=1e-6)
        assert values.dtype == torch.float32

    def test_only_whole_batch_terms_gather_logits(self) -> None:
        whole = random_inputs(6, batch=8)

        def half(prediction: ModelOutput) -> ModelOutput:
            return ModelOutput(
                prediction.logits[:4],
                prediction.classes[:4],
                prediction.maps[:4],
                tuple(f[:4] for f in prediction.features),
            )

        mine = replace(
            whole, student=half(whole.student), teacher=half(whole.teacher_output), targets=whole.targets[:4]
        )
        group = WithPartner(others=(whole.student.logits, whole.teacher_output.logits))
        values = Objective(self.SETTINGS).values(mine, group)
        expected = [
            term(name, whole if name == "dist" else mine, **settings).item() for name, settings in self.SETTINGS.items()
        ]
        assert values.tolist() == pytest.approx(expected, rel=1e-6)


def test_projection_can_be_learned() -> None:
    """A 1×1 convolution can map the student's channels to the teacher's."""
    torch.manual_seed(0)
    features = torch.randn(4, 3, 4, 4)
    mixing = nn.Conv2d(3, 6, 1)
    inputs = random_inputs()
    taught = ModelOutput(inputs.teacher_output.logits, features=(mixing(features).detach(),))
    projection = nn.Conv2d(3, 6, 1)
    optimizer = torch.optim.Adam(projection.parameters(), 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        term("hint", replace(inputs, teacher=taught, projected=(projection(features),))).backward()
        optimizer.step()
    assert torch.allclose(projection.weight, mixing.weight, atol=0.02)
