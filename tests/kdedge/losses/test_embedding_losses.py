"""Losses of embeddings, compared with plain loops in float64."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from loss_references import random_inputs, term, with_embeddings

from kdedge.losses.loss_inputs import LossInputs


def embeddings(inputs: LossInputs) -> tuple[np.ndarray, np.ndarray]:
    return tuple(each.features[0].double().numpy()[:, :, 0, 0] for each in (inputs.student, inputs.teacher_output))


def huber(difference: float) -> float:
    return 0.5 * difference**2 if abs(difference) <= 1 else abs(difference) - 0.5


def relative_distances(vectors: np.ndarray) -> np.ndarray:
    count = len(vectors)
    distances = np.array([[np.linalg.norm(a - b) for b in vectors] for a in vectors])
    return distances / (distances.sum() / (count * (count - 1)))


def angle(vectors: np.ndarray, i: int, j: int, k: int) -> float:
    first, second = vectors[i] - vectors[j], vectors[k] - vectors[j]
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / lengths) if lengths else 0.0


@pytest.mark.parametrize("seed", [0, 1])
class TestCosine:
    def test_equals_the_mean_cosine(self, seed: int) -> None:
        inputs = with_embeddings(random_inputs(batch=5), 6, 6, seed)
        ours, theirs = embeddings(inputs)
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(ours, theirs, strict=True)]
        assert term("cosine", inputs).item() == pytest.approx(1 - np.mean(cosines), rel=1e-5)

    def test_lengths_are_ignored(self, seed: int) -> None:
        inputs = with_embeddings(random_inputs(), 6, 6, seed)
        longer = replace(inputs, student=replace(inputs.student, features=(7 * inputs.student.features[0],)))
        assert term("cosine", longer).item() == pytest.approx(term("cosine", inputs).item(), rel=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
class TestRelations:
    def test_equals_loops_over_pairs_and_triplets(self, seed: int) -> None:
        inputs = with_embeddings(random_inputs(batch=5), 4, 9, seed)
        ours, theirs = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in embeddings(inputs))
        a, b = relative_distances(ours), relative_distances(theirs)
        distance = np.mean([huber(a[i, j] - b[i, j]) for i, j in product(range(5), repeat=2)])
        triplets = list(product(range(5), repeat=3))
        angles = np.mean([huber(angle(ours, *places) - angle(theirs, *places)) for places in triplets])
        assert term("rkd", inputs).item() == pytest.approx(distance + 2 * angles, rel=1e-4)

    def test_rotation_of_the_student_costs_nothing(self, seed: int) -> None:
        inputs = with_embeddings(random_inputs(batch=6), 5, 5, seed)
        rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(seed)))
        (theirs,) = inputs.teacher_output.features
        rotated = (theirs[:, :, 0, 0] @ rotation)[:, :, None, None]
        alike = replace(inputs, student=replace(inputs.student, features=(rotated,)))
        assert term("rkd", alike).item() == pytest.approx(0, abs=1e-6)
        assert term("cosine", alike).item() > 0.1

    def test_copies_in_a_batch_have_finite_gradients(self, seed: int) -> None:
        inputs = with_embeddings(random_inputs(batch=4), 5, 5, seed)
        (ours,) = inputs.student.features
        copies = ours[[0, 0, 1, 1]].requires_grad_()
        term("rkd", replace(inputs, student=replace(inputs.student, features=(copies,)))).backward()
        assert copies.grad is not None and copies.grad.isfinite().all()
