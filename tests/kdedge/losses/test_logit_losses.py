"""Losses of logits, compared with plain loops in float64 and with manually computed values."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from loss_references import inputs_of_logits, kl_by_hand, logits_of, random_inputs, rows, softmax_by_hand, term

from kdedge.losses import LOSS_TERMS
from kdedge.losses.loss_inputs import LossInputs, ModelOutput


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

    def test_unlabeled_images_are_ignored(self) -> None:
        inputs = random_inputs(batch=8)
        labeled = torch.arange(8)[:, None] % 4 == 0
        alone = LossInputs(ModelOutput(inputs.student.logits[::4]), None, inputs.targets[::4], 1.0)
        mixed = replace(inputs, targets=inputs.targets * labeled, labeled_fraction=0.25)
        assert term("ce", mixed).item() == pytest.approx(term("ce", alone).item(), rel=1e-5)

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

    def test_unlabeled_image_takes_the_top_class_of_the_teacher(self) -> None:
        inputs = random_inputs()
        top = torch.eye(5)[inputs.teacher_output.logits.argmax(dim=1)]
        unlabeled, labeled = (replace(inputs, targets=targets) for targets in (torch.zeros_like(top), top))
        assert not torch.equal(top, inputs.targets)
        assert term("dkd", unlabeled).item() == term("dkd", labeled).item()
        some = torch.cat((inputs.targets[:1], torch.zeros_like(top[1:])))
        completed = torch.cat((inputs.targets[:1], top[1:]))
        mixed, whole = (term("dkd", replace(inputs, targets=targets)).item() for targets in (some, completed))
        assert mixed == whole != term("dkd", labeled).item()

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
