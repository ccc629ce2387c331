"""Inputs of loss terms, and an independent implementation in plain loops over plain numbers."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.losses import LOSS_TERMS
from kdedge.losses.loss_inputs import LossInputs, ModelOutput


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


def with_embeddings(inputs: LossInputs, student: int, teacher: int, seed: int = 0) -> LossInputs:
    """Replace the features by random embeddings of these sizes, `[N, D, 1, 1]`."""
    generator = torch.Generator().manual_seed(seed)
    count = len(inputs.student.logits)
    ours, theirs = (torch.randn(count, size, 1, 1, generator=generator) for size in (student, teacher))
    return replace(
        inputs,
        student=replace(inputs.student, features=(ours,)),
        teacher=replace(inputs.teacher_output, features=(theirs,)),
    )


def inputs_of_logits(student: Tensor, teacher: Tensor, temperature: float = 1.0, target: int = 0) -> LossInputs:
    targets = F.one_hot(torch.full((len(student),), target), student.shape[1]).float()
    return LossInputs(ModelOutput(student), ModelOutput(teacher), targets, temperature)


def inputs_of_maps(student: Tensor, teacher: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> LossInputs:
    """Build a batch of one with given maps `[K, h, w]`, the teacher's most probable class first."""
    order = teacher_logits.argsort(descending=True, stable=True)[None]
    ours = ModelOutput(torch.zeros(1, len(student)), order, student[order[0]][None])
    theirs = ModelOutput(teacher_logits[None], order, teacher[order[0]][None])
    return LossInputs(ours, theirs, torch.eye(len(student))[:1], temperature)


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
