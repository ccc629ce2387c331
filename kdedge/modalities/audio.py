"""Audio at training: readers, networks and augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge.modalities.training_modality import Augmenter, TrainingModality

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdedge.config.augmentation_settings import Augmentation
    from kdedge.config.train_config import TrainConfig
    from kdedge.data.dataset_index import DatasetIndex
    from kdedge.data.dataset_options import DatasetOptions
    from kdedge.data.unlabeled import UnlabeledSource
    from kdedge.models.graph_feed import GraphFeed
    from kdedge.models.model_spec import ModelSpec
    from kdedge.models.teacher_source import LoadedTeacher
    from kdedge_export.onnx_graph.graph_index import GraphIndex
    from kdedge_runtime.modalities.audio import AudioInput

__all__ = ["AUDIO", "SPEECH_EMBEDDING", "AudioTraining"]

SPEECH_EMBEDDING = "audio:speech_embedding"
"""Name of the network `kdedge.models.speech_embedding`, without importing it."""


class AudioTraining(TrainingModality):
    """Sounds in folders. Parts are imported on first use."""

    def reads(self, data: str) -> bool:
        """Return True for a folder with sounds and no images."""
        from kdedge.data.readers.sound_folder import holds_sounds

        return holds_sounds(Path(data))

    @property
    def dataset_options(self) -> frozenset[str]:
        """Groups of recordings, and the window that long ones are cut into."""
        return frozenset({"group_by", "window"})

    def index(self, data: str, options: DatasetOptions, *, unlabeled_ok: bool) -> DatasetIndex:
        """List a folder of sounds; windows are cut when the input is known (`SoundSample.for_input`)."""
        from kdedge.data.readers.sound_folder import list_sound_folder

        return list_sound_folder(Path(data), unlabeled_ok=unlabeled_ok)

    def list_unlabeled(self, location: str, dataset: DatasetIndex, *, every_s: float) -> list[UnlabeledSource]:
        """List the sounds of a folder; see `list_unlabeled_sounds`. Long ones are cut into windows."""
        from kdedge.data.readers.sound_folder import list_unlabeled_sounds

        return list_unlabeled_sounds(Path(location))

    def check_model(self, name: str) -> None:
        """Raise if there is no such network; see `kdedge.models.model_names` and `kdedge.models.speech_embedding`."""
        from kdedge.models.custom_path import factory_parts, is_factory
        from kdedge.models.model_names import canonical_name
        from kdedge.models.trees import refuse_table_model

        refuse_table_model(name, "sounds", "small:resnet10w16")
        if is_factory(name):
            factory_parts(name)
        elif name != SPEECH_EMBEDDING:
            canonical_name(name)

    @property
    def students(self) -> Sequence[str]:
        """Residual networks for images, which take the features as one."""
        return "small:resnet10w16", "small:resnet8"

    def choose_network(
        self, request: TrainConfig, teachers: Sequence[LoadedTeacher], dataset: DatasetIndex, *, on_cpu: bool
    ) -> tuple[ModelSpec, AudioInput]:
        """Choose rate, window, features and map resolution; see `choose_audio_network`."""
        from kdedge.modalities.audio_network import choose_audio_network

        return choose_audio_network(request, teachers, dataset)

    def build_model(self, model: ModelSpec, spec: AudioInput) -> nn.Module:
        """Build a network for images, which takes mel bands × frames as height and width, or the speech embedding."""
        if model.name == SPEECH_EMBEDDING:
            from kdedge.models.speech_embedding import SpeechEmbedding

            return SpeechEmbedding(model.classes)
        from kdedge.models.model_registry import build_model

        return build_model(model, (spec.mel_bands, spec.frames))

    def read_weights(self, model: ModelSpec, spec: AudioInput, file: Path) -> dict[str, Tensor] | None:
        """Read the published `.onnx` file of the speech embedding."""
        if model.name != SPEECH_EMBEDDING or file.suffix != ".onnx":
            return None
        from kdedge.models.speech_embedding import read_speech_embedding

        return read_speech_embedding(file)

    def foreign_feed(self, view: GraphIndex, name: str) -> tuple[AudioInput, GraphFeed]:
        """Describe the input of a teacher's graph of another framework; see `find_sound_feed`."""
        from kdedge.models.sound_feed import find_sound_feed

        return find_sound_feed(view, name)

    @property
    def flips(self) -> bool:
        """False, since sounds have a direction."""
        return False

    def augmenter(self, settings: Augmentation, spec: AudioInput) -> Augmenter:
        """Create the augmentation of sounds; see `AudioAugmenter`."""
        from kdedge.training.augmentation.audio_augmenter import AudioAugmenter

        return AudioAugmenter(settings, spec)

    def mismatch(self, teacher: AudioInput, spec: AudioInput) -> str | None:
        """Return a warning about a teacher with another rate; windows are equal, see `choose_audio_network`."""
        if teacher.rate_hz == spec.rate_hz:
            return None
        return f"takes {teacher.summary}, but the student {spec.summary}."


AUDIO = AudioTraining()
"""Sounds."""
