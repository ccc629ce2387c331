"""Toy modality and task at training: `.npy` files, convolutional networks, and binary losses."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toy_runtime import CHANNELS, KIND, LABELS, LENGTH, TASK, SignalInput

from kdedge.config.augmentation_settings import Augmentation
from kdedge.config.loss_spec import LossSpec
from kdedge.config.train_config import TrainConfig
from kdedge.data import DatasetIndex, Split
from kdedge.data.dataset_index import fingerprint_of
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.samples import LoadedSample, StoredSample, file_stamp
from kdedge.losses import LossTerm
from kdedge.losses.loss_inputs import LossInputs
from kdedge.modalities import TrainingModality
from kdedge.models.model_spec import ModelSpec
from kdedge.models.teacher_source import LoadedTeacher
from kdedge.tasks import TrainingTask
from kdedge_runtime.errors import UnreadableSample


@dataclass(frozen=True, slots=True)
class SignalSample(StoredSample):
    """Signal in a `.npy` file."""

    path: str

    def read(self) -> LoadedSample:
        try:
            return LoadedSample(np.load(self.path, allow_pickle=False))
        except (OSError, ValueError) as error:
            raise UnreadableSample(f"{self.path} is not a signal ({error}).", "not a signal") from error

    def stamp(self) -> str:
        return file_stamp(self.path)


class Rolls(NamedTuple):
    """Circular shift of each signal, int64 `[n]`."""

    steps: Tensor

    def to(self, device: torch.device) -> "Rolls":
        return Rolls(self.steps.to(device))

    def take(self, index: Tensor) -> "Rolls":
        return Rolls(self.steps[index])


@dataclass(frozen=True)
class SignalAugmenter:
    """Circular shifts in time, by the setting `shift`."""

    settings: Augmentation
    length: int

    def draw(self, count: int, generator: torch.Generator) -> Rolls:
        most = round(self.settings.shift * self.length)
        return Rolls(torch.randint(-most, most + 1, (count,), generator=generator))

    def apply(self, samples: Tensor, params: Rolls) -> Tensor:
        steps = (torch.arange(self.length) - params.steps[:, None]) % self.length
        return samples.gather(1, steps[..., None].expand_as(samples))

    def draw_mixing(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def blend(self, samples: Tensor, targets: Tensor, mixing: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class SignalTraining(TrainingModality):
    """Folders `train/` and `val/` of files named `BITS-NUMBER.npy`; each bit of BITS is a label."""

    def reads(self, data: str) -> bool:
        return any(Path(data).glob("train/*.npy"))

    def index(self, data: str, options: DatasetOptions, *, unlabeled_ok: bool) -> DatasetIndex:
        root = Path(data)

        def split(side: str) -> Split:
            files = sorted((root / side).glob("*.npy"))
            samples = tuple(SignalSample(f"{side}/{file.name}", str(file)) for file in files)
            return Split(samples, tuple(int(file.name.partition("-")[0]) for file in files))

        train, val = split("train"), split("val")
        names = [sample.name for part in (train, val) for sample in part.samples]
        return DatasetIndex(str(root.resolve()), LABELS, train, val, None, "folders", fingerprint_of(names), KIND, TASK)

    def choose_network(
        self, request: TrainConfig, teachers: Sequence[LoadedTeacher], dataset: DatasetIndex, *, on_cpu: bool
    ) -> tuple[ModelSpec, SignalInput]:
        return ModelSpec(request.model, len(dataset.labels)), SignalInput(LENGTH, (0.0,) * CHANNELS, (1.0,) * CHANNELS)

    def build_model(self, model: ModelSpec, spec: SignalInput) -> nn.Module:
        width = {"signal:wide": 32, "signal:narrow": 8}[model.name]
        return nn.Sequential(
            *_block(len(spec.mean), width),
            *_block(width, 2 * width, stride=2),
            *_block(2 * width, 2 * width, stride=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, model.classes),
        )

    def augmenter(self, settings: Augmentation, spec: SignalInput) -> SignalAugmenter:
        ignored = replace(settings, shift=Augmentation().shift, flip=Augmentation().flip)
        assert asdict(ignored) == asdict(Augmentation()), "signals have no such augmentation"
        return SignalAugmenter(settings, spec.length)


def _block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, (1, 5), (1, stride), (0, 2), bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


class MultilabelTraining(TrainingTask):
    """Targets are vectors of zeros and ones; the best epoch has the smallest loss."""

    def targets(self, values: Tensor, outputs: int) -> Tensor:
        return ((values[:, None] >> torch.arange(outputs, device=values.device)) & 1).float()

    def default_loss(self, recipe: LossSpec) -> LossSpec:
        """Replace softmax terms by their binary counterparts; terms of maps stay."""
        return recipe.renamed({"ce": "bce", "kd": "bkd"})

    def metrics(self, logits: Tensor, values: Tensor) -> dict[str, float]:
        targets = self.targets(values, logits.shape[1])
        right = ((logits > 0) == (targets > 0.5)).float().mean()
        return {"labels": float(right), "loss": float(F.binary_cross_entropy_with_logits(logits, targets))}

    def merit(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        return (-metrics["val_loss"],)


def binary_cross_entropy(inputs: LossInputs) -> Tensor:
    return F.binary_cross_entropy_with_logits(inputs.student.logits, inputs.targets)


def binary_distillation(inputs: LossInputs) -> Tensor:
    return F.binary_cross_entropy_with_logits(inputs.student.logits, inputs.teacher_output.logits.sigmoid())


BCE = LossTerm(binary_cross_entropy, 1.0, needs_teacher=False)
BKD = LossTerm(binary_distillation, 0.9)
SIGNAL = SignalTraining()
MULTILABEL = MultilabelTraining()
