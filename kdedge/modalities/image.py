"""Images at training: readers, networks and augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge.modalities.training_modality import Augmenter, TrainingModality
from kdedge_runtime.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdedge.config.augmentation_settings import Augmentation
    from kdedge.config.train_config import TrainConfig
    from kdedge.data.dataset_index import DatasetIndex
    from kdedge.data.dataset_options import DatasetOptions
    from kdedge.data.unlabeled import UnlabeledSource
    from kdedge.models.model_spec import ModelSpec
    from kdedge.models.published_weights import PublishedWeights
    from kdedge.models.teacher_source import LoadedTeacher
    from kdedge_runtime.modalities import Sample
    from kdedge_runtime.modalities.image import ImageInput

__all__ = ["IMAGE", "ImageTraining"]


class ImageTraining(TrainingModality):
    """Images in folders, torchvision datasets or WebDataset shards. Parts are imported on first use."""

    def reads(self, data: str) -> bool:
        """Return False: images are the modality of every dataset that no other reads."""
        return False

    def index(self, data: str, options: DatasetOptions, *, unlabeled_ok: bool) -> DatasetIndex:
        """List a torchvision dataset (`torchvision:NAME:ROOT`), shards, or a folder; see `kdedge.data.readers`."""
        from kdedge.data.dataset_index import TORCHVISION
        from kdedge.data.readers.class_folders import list_folder
        from kdedge.data.readers.frigate import find_frigate_dataset, list_frigate_dataset
        from kdedge.data.readers.webdataset import is_shards, list_shards

        if data.startswith(TORCHVISION):
            from kdedge.data.readers.torchvision_datasets import list_torchvision  # torchvision takes seconds

            return list_torchvision(data)
        if is_shards(data):
            return list_shards(data, unlabeled_ok=unlabeled_ok)
        if (frigate := find_frigate_dataset(Path(data))) is not None:
            return list_frigate_dataset(frigate)
        return list_folder(Path(data), unlabeled_ok=unlabeled_ok)

    def list_unlabeled(self, location: str, dataset: DatasetIndex, *, every_s: float) -> list[UnlabeledSource]:
        """List images of a folder, a pattern or shards, and frames of videos; see `list_unlabeled_images`."""
        from kdedge.data.readers.unlabeled_images import list_unlabeled_images

        return list_unlabeled_images(location, every_s=every_s)

    def perceptual_hash(self, sample: Sample) -> int | None:
        """Compute the pHash of an image; see `perceptual_hash`."""
        from kdedge.data.perceptual_hash import perceptual_hash

        return perceptual_hash(sample)

    def check_model(self, name: str) -> None:
        """Raise if torchvision, timm or kdedge has no such network, or there is no such Python file."""
        from kdedge.models.custom_path import factory_parts, is_factory
        from kdedge.models.model_names import canonical_name
        from kdedge.models.trees import refuse_table_model

        refuse_table_model(name, "images", "resnet18 or small:resnet8")
        if is_factory(name):
            factory_parts(name)
        else:
            canonical_name(name)

    def find_published(self, name: str) -> PublishedWeights | None:
        """Describe the published weights of torchvision or timm; see `find_published`."""
        from kdedge.models.published_weights import find_published

        return find_published(name)

    @property
    def students(self) -> Sequence[str]:
        """Residual networks; other small models are not smaller, or too deep to be fast."""
        return "small:resnet10w16", "small:resnet8"

    def choose_network(
        self, request: TrainConfig, teachers: Sequence[LoadedTeacher], dataset: DatasetIndex, *, on_cpu: bool
    ) -> tuple[ModelSpec, ImageInput]:
        """Choose input size and map resolution; see `choose_image_network`."""
        from kdedge.modalities.image_network import choose_image_network

        return choose_image_network(request, teachers, dataset, on_cpu=on_cpu)

    def build_model(self, model: ModelSpec, spec: ImageInput) -> nn.Module:
        """Build a network of torchvision, timm, kdedge or the user; see `build_model`."""
        from kdedge.models.model_registry import build_model

        return build_model(model, spec.height)

    def read_weights(self, model: ModelSpec, spec: ImageInput, file: Path) -> dict[str, Tensor]:
        """Read a weights file under the names of the installed library; see `read_network_state`."""
        from kdedge.models.network_state import read_network_state

        return read_network_state(model.name, file, spec.height)

    def head_tensors(self, model: ModelSpec, spec: ImageInput) -> tuple[str, ...]:
        """Return the tensors of the last layer, found without allocating weights; see `head_tensors`."""
        from kdedge.models.model_registry import head_tensors

        return head_tensors(model.name, spec.height)

    def augmenter(self, settings: Augmentation, spec: ImageInput) -> Augmenter:
        """Create the augmentation of images; see `ImageAugmenter`."""
        if settings.background:
            raise UsageError("The augmentation setting background mixes sounds, but the samples are images. Remove it.")
        from kdedge.training.augmentation.image_augmenter import ImageAugmenter

        return ImageAugmenter(settings, spec.height, spec.width)

    def mismatch(self, teacher: ImageInput, spec: ImageInput) -> str | None:
        """Return a warning about a teacher with a non-square input."""
        if teacher.height == teacher.width:
            return None
        return (
            f"takes images of {teacher.width} × {teacher.height} px, but students take square images: it receives a "
            "stretched center crop of each image. Its accuracy on these is printed below."
        )


IMAGE = ImageTraining()
