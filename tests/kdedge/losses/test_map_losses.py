"""Losses of maps, compared with plain loops in float64 and with manually computed values."""

import math

import numpy as np
import pytest
import torch
from loss_references import (
    disagreement_by_hand,
    inputs_of_maps,
    maps_by_hand,
    pooled_by_hand,
    random_inputs,
    rows,
    softmax_by_hand,
    term,
)

from kdedge.losses import LOSS_TERMS
from kdedge.losses.all_class_maps import MOST_PROBABLE
from kdedge.losses.map_distance import match_spatial_size, pearson

MAP_TERMS = [name for name, term in LOSS_TERMS.items() if term.map_classes]


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

    def test_small_values_correlate(self) -> None:
        small = 1e-5 * torch.linspace(-1, 1, 49)
        assert pearson(small, small).item() == pytest.approx(1.0, abs=1e-4)

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
