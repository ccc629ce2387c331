"""Each term of the loss, against plain loops in float64 and against values worked out by hand."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdedge.distill.lesson import Lesson, View
from kdedge.distill.losses import MAP_TERMS, TAUGHT_TERMS, TERMS
from kdedge.distill.losses.maps import MOST_PROBABLE, pearson
from kdedge_export.saliency import ExplainedModel, find_head
from kdedge_export.saliency.find import example_input


class Classifier(nn.Module):
    """A convolution, global average pooling and one dense layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(x).mean(dim=(2, 3)))


def view(logits: Tensor, activations: Tensor, weight: Tensor | None = None) -> View:
    """A look at a batch; without `weight` the map of class c is channel c, divided by the number of cells."""
    channels = activations.shape[1]
    model = Classifier(channels, channels if weight is None else len(weight))
    head = find_head(model, example_input(8, 8))
    model.linear.weight.data = torch.eye(channels) if weight is None else weight.clone()
    return View(ExplainedModel(model, head), logits, activations)


def random_lesson(
    classes: int = 5,
    student_cells: tuple[int, int] = (6, 6),
    teacher_cells: tuple[int, int] = (6, 6),
    temperature: float = 4.0,
    batch: int = 3,
) -> Lesson:
    generator = torch.Generator().manual_seed(classes)

    def look(cells: tuple[int, int], channels: int) -> View:
        return view(
            3 * torch.randn(batch, classes, generator=generator),
            torch.randn(batch, channels, *cells, generator=generator).relu(),
            torch.randn(classes, channels, generator=generator),
        )

    targets = torch.randint(classes, (batch,), generator=generator)
    return Lesson(look(student_cells, 7), look(teacher_cells, 4), targets, temperature)


def lesson_of_maps(student: Tensor, teacher: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Lesson:
    """A batch of one whose maps `[K, h, w]` are given directly."""
    ours, theirs = view(torch.zeros(1, len(student)), student[None]), view(teacher_logits[None], teacher[None])
    return Lesson(ours, theirs, torch.tensor([0]), temperature)


# ---- an independent implementation: plain loops over plain numbers


def softmax_by_hand(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def rows(logits: Tensor) -> list[list[float]]:
    return logits.detach().double().tolist()


def map_by_hand(look: View, image: int, label: int) -> np.ndarray:
    assert look.model is not None and look.activations is not None
    weight = look.model.model.linear.weight.detach().double().numpy()
    activations = look.activations[image].detach().double().numpy()
    _, height, width = activations.shape
    return sum(weight[label, k] * activations[k] for k in range(len(activations))) / (height * width)


def pooled_by_hand(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mean of the cells that each new cell covers, at least in part."""
    rows, columns = cells.shape
    result = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            top, bottom = math.floor(i * rows / height), math.ceil((i + 1) * rows / height)
            left, right = math.floor(j * columns / width), math.ceil((j + 1) * columns / width)
            result[i, j] = cells[top:bottom, left:right].mean()
    return result


def pearson_by_hand(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def disagreement_by_hand(lesson: Lesson, image: int, label: int) -> float:
    student, teacher = (map_by_hand(look, image, label) for look in (lesson.student, lesson.taught))
    height, width = min(student.shape[0], teacher.shape[0]), min(student.shape[1], teacher.shape[1])
    return 1 - pearson_by_hand(pooled_by_hand(student, height, width), pooled_by_hand(teacher, height, width))


class TestCrossEntropy:
    def test_it_equals_the_plain_sum(self) -> None:
        lesson = random_lesson()
        expected = [
            -math.log(softmax_by_hand(row)[target])
            for row, target in zip(rows(lesson.student.logits), lesson.targets.tolist(), strict=True)
        ]
        assert TERMS["ce"](lesson).item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)

    def test_knowing_nothing_of_four_classes_costs_log_4(self) -> None:
        lesson = Lesson(View(None, torch.zeros(2, 4), None), None, torch.tensor([1, 3]), 1.0)
        assert TERMS["ce"](lesson).item() == pytest.approx(math.log(4))


class TestSoftLabels:
    @pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
    def test_it_equals_the_plain_sum(self, temperature: float) -> None:
        lesson = random_lesson(temperature=temperature)
        expected = 0.0
        for ours, theirs in zip(rows(lesson.student.logits), rows(lesson.taught.logits), strict=True):
            student = softmax_by_hand([value / temperature for value in ours])
            teacher = softmax_by_hand([value / temperature for value in theirs])
            expected += sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True))
        expected *= temperature**2 / len(lesson.targets)
        assert TERMS["kd"](lesson).item() == pytest.approx(expected, rel=1e-4)

    def test_a_teacher_who_says_3_to_1_to_a_student_who_says_even(self) -> None:
        teacher = View(None, torch.tensor([[math.log(3.0), 0.0]]), None)
        lesson = Lesson(View(None, torch.zeros(1, 2), None), teacher, torch.tensor([0]), 1.0)
        assert TERMS["kd"](lesson).item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-6)

    def test_it_is_zero_for_equal_beliefs(self) -> None:
        teacher = View(None, torch.randn(4, 6), None)
        assert TERMS["kd"](Lesson(teacher, teacher, torch.zeros(4).long(), 3.0)).item() == pytest.approx(0, abs=1e-6)

    @pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
    def test_its_gradient_is_the_temperature_times_the_difference_of_beliefs(self, temperature: float) -> None:
        lesson = random_lesson(temperature=temperature)
        lesson.student.logits.requires_grad_()
        TERMS["kd"](lesson).backward()
        for image, (ours, theirs) in enumerate(
            zip(rows(lesson.student.logits), rows(lesson.taught.logits), strict=True)
        ):
            student = softmax_by_hand([value / temperature for value in ours])
            teacher = softmax_by_hand([value / temperature for value in theirs])
            expected = [temperature * (q - p) / 3 for p, q in zip(teacher, student, strict=True)]
            assert lesson.student.logits.grad[image].tolist() == pytest.approx(expected, abs=1e-5)

    def test_the_size_of_its_gradient_hardly_depends_on_a_high_temperature(self) -> None:
        """Hinton et al. 2015, §2.1: the limit is the difference of the centred logits, divided by their number."""
        sizes = []
        for temperature in (50.0, 100.0):
            lesson = random_lesson(temperature=temperature)
            lesson.student.logits.requires_grad_()
            TERMS["kd"](lesson).backward()
            sizes.append(lesson.student.logits.grad)
        difference = lesson.student.logits.detach() - lesson.taught.logits
        limit = (difference - difference.mean(dim=1, keepdim=True)) / (3 * 5)
        assert torch.allclose(sizes[1], limit, atol=0.03 * limit.abs().max())
        assert torch.allclose(sizes[0], sizes[1], atol=0.06 * limit.abs().max())


class TestTopClassMap:
    def test_it_compares_the_maps_of_the_teachers_top_class(self) -> None:
        lesson = random_lesson()
        expected = [
            disagreement_by_hand(lesson, image, int(np.argmax(row)))
            for image, row in enumerate(rows(lesson.taught.logits))
        ]
        assert TERMS["map"](lesson).item() == pytest.approx(sum(expected) / len(expected), abs=1e-5)

    def test_the_students_own_top_class_does_not_matter(self) -> None:
        maps = torch.randn(3, 4, 4)
        lesson = lesson_of_maps(maps, torch.stack([maps[0], -maps[1], -maps[2]]), torch.tensor([2.0, 1.0, 0.0]))
        lesson.student.logits[0, 1] = 9.0
        assert TERMS["map"](lesson).item() == pytest.approx(0, abs=1e-6)


class TestAllClassMaps:
    @pytest.mark.parametrize("classes", [2, 5, MOST_PROBABLE])
    @pytest.mark.parametrize("temperature", [1.0, 4.0])
    def test_it_equals_the_weighted_sum_over_all_classes(self, classes: int, temperature: float) -> None:
        lesson = random_lesson(classes, temperature=temperature)
        expected = 0.0
        for image, row in enumerate(rows(lesson.taught.logits)):
            beliefs = softmax_by_hand([value / temperature for value in row])
            expected += sum(p * disagreement_by_hand(lesson, image, label) for label, p in enumerate(beliefs))
        assert TERMS["mapall"](lesson).item() == pytest.approx(expected / 3, abs=1e-5)

    def test_of_many_classes_only_the_most_probable_count(self) -> None:
        lesson = random_lesson(MOST_PROBABLE + 9)
        expected = 0.0
        for image, row in enumerate(rows(lesson.taught.logits)):
            likely = sorted(range(len(row)), key=lambda label: -row[label])[:MOST_PROBABLE]
            beliefs = softmax_by_hand([row[label] / 4.0 for label in likely])
            expected += sum(
                p * disagreement_by_hand(lesson, image, label) for p, label in zip(beliefs, likely, strict=True)
            )
        assert TERMS["mapall"](lesson).item() == pytest.approx(expected / 3, abs=1e-5)

    def test_maps_that_agree_on_the_first_of_two_classes_and_oppose_on_the_second(self) -> None:
        maps = torch.randn(2, 5, 5)
        lesson = lesson_of_maps(maps, torch.stack([maps[0], -maps[1]]), torch.tensor([math.log(3.0), 0.0]))
        assert TERMS["mapall"](lesson).item() == pytest.approx(0.75 * 0 + 0.25 * 2, abs=1e-5)

    def test_a_higher_temperature_gives_the_unlikely_class_more_weight(self) -> None:
        maps = torch.randn(2, 5, 5)
        lesson = lesson_of_maps(maps, torch.stack([maps[0], -maps[1]]), torch.tensor([math.log(9.0), 0.0]), 2.0)
        assert TERMS["mapall"](lesson).item() == pytest.approx(0.25 * 2, abs=1e-5)  # the square root of 9 is 3


@pytest.mark.parametrize("term", sorted(MAP_TERMS))
class TestAnyMapTerm:
    @pytest.mark.parametrize(
        ("student_cells", "teacher_cells"),
        [((4, 4), (8, 8)), ((8, 8), (4, 4)), ((6, 6), (4, 4)), ((7, 7), (3, 3)), ((4, 8), (8, 6))],
        ids=str,
    )
    def test_maps_are_averaged_down_to_the_smaller_of_both_sides(
        self, term: str, student_cells: tuple[int, int], teacher_cells: tuple[int, int]
    ) -> None:
        lesson = random_lesson(4, student_cells, teacher_cells)
        expected = 0.0
        for image, row in enumerate(rows(lesson.taught.logits)):
            beliefs = softmax_by_hand([value / 4.0 for value in row])
            if term == "map":
                beliefs = [float(belief == max(beliefs)) for belief in beliefs]
            expected += sum(p * disagreement_by_hand(lesson, image, label) for label, p in enumerate(beliefs))
        assert TERMS[term](lesson).item() == pytest.approx(expected / 3, abs=1e-5)

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
    @pytest.mark.parametrize("offset", [-5.0, 0.0, 5.0])
    def test_it_is_blind_to_the_scale_and_the_offset_of_either_map(
        self, term: str, scale: float, offset: float
    ) -> None:
        generator = torch.Generator().manual_seed(1)
        student, teacher = torch.randn(2, 3, 6, 6, generator=generator)
        logits = torch.tensor([1.0, 0.5, 0.0])
        expected = TERMS[term](lesson_of_maps(student, teacher, logits)).item()
        moved = TERMS[term](lesson_of_maps(scale * (student + offset), teacher, logits)).item()
        assert moved == pytest.approx(expected, abs=1e-4)
        moved = TERMS[term](lesson_of_maps(student, scale * (teacher + offset), logits)).item()
        assert moved == pytest.approx(expected, abs=1e-4)

    def test_it_runs_from_0_for_equal_maps_to_2_for_opposed_ones(self, term: str) -> None:
        maps, logits = torch.randn(3, 6, 6), torch.zeros(3)
        assert TERMS[term](lesson_of_maps(maps, maps, logits)).item() == pytest.approx(0, abs=1e-5)
        assert TERMS[term](lesson_of_maps(-maps, maps, logits)).item() == pytest.approx(2, abs=1e-5)

    def test_a_map_that_speaks_only_against_the_class_still_learns(self, term: str) -> None:
        """Rectified it would be all zero, and so would be its gradient."""
        generator = torch.Generator().manual_seed(2)
        student = (-1 - torch.rand(3, 6, 6, generator=generator)).requires_grad_()
        teacher = torch.rand(3, 6, 6, generator=generator)
        TERMS[term](lesson_of_maps(student, teacher, torch.tensor([2.0, 0.0, 0.0]))).backward()
        assert student.grad is not None and student.grad.isfinite().all()
        assert student.grad[0].abs().max() > 1e-3

    @pytest.mark.parametrize("constant", [0.0, 1.0])
    def test_a_constant_map_costs_1_and_its_gradient_is_finite(self, term: str, constant: float) -> None:
        student = torch.full((2, 6, 6), constant).requires_grad_()
        loss = TERMS[term](lesson_of_maps(student, torch.randn(2, 6, 6), torch.zeros(2)))
        loss.backward()
        assert loss.item() == pytest.approx(1)
        assert student.grad is not None and student.grad.isfinite().all()

    def test_it_teaches_the_students_features_and_head_and_never_the_teacher(self, term: str) -> None:
        lesson = random_lesson()
        assert lesson.student.activations is not None and lesson.taught.activations is not None
        lesson.student.activations.requires_grad_()
        lesson.taught.activations.requires_grad_()
        TERMS[term](lesson).backward()
        assert lesson.student.activations.grad is not None
        assert lesson.student.model is not None and lesson.taught.model is not None
        assert lesson.student.model.get_parameter("model.linear.weight").grad is not None
        assert lesson.taught.activations.grad is None
        assert lesson.taught.model.get_parameter("model.linear.weight").grad is None


def test_pearson_of_a_case_worked_by_hand() -> None:
    a = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    b = torch.tensor([[[2.0, 1.0], [4.0, 3.0]]])
    assert pearson(a, b).item() == pytest.approx(3 / 5)  # deviations ∓1.5, ∓0.5 against ∓0.5, ∓1.5


def test_the_terms_that_need_a_teacher_or_maps_are_named() -> None:
    blind = View(None, torch.zeros(1, 2), None)
    alone, mapless = Lesson(blind, None, torch.tensor([0]), 1.0), Lesson(blind, blind, torch.tensor([0]), 1.0)
    for lesson, cannot in ((alone, TAUGHT_TERMS), (mapless, MAP_TERMS)):
        for name, term in TERMS.items():
            with pytest.raises(AssertionError) if name in cannot else nullcontext():
                term(lesson)
