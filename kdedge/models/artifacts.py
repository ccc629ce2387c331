"""Run folders, model files and model names as they are typed, resolved once.

This module does not import torch, which takes seconds, so that errors are reported immediately.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from kdedge.data.dataset_index import TORCHVISION
from kdedge.data.dataset_options import NO_OPTIONS, DatasetOptions
from kdedge.data.readers.webdataset import is_shards
from kdedge.modalities import TRAINING_MODALITIES
from kdedge.models.custom_path import factory_parts, is_factory
from kdedge.models.model_source import check_own_weights, check_weights, network_name
from kdedge.models.run_folder import RunRecord, is_run, read_run, weights_file
from kdedge.models.trees import is_tree_file, is_tree_run, refuse_export
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.util.file_hint import file_hint
from kdedge_runtime.util.files import Location

__all__ = ["Artifacts"]


@dataclass(frozen=True)
class Artifacts:
    """Run folder with its record, model file, or model name; accepted wherever a path is."""

    source: str
    """Location or name as typed."""
    run: Path | None = None
    """Run folder; None for a model file or a model name."""
    record: RunRecord | None = None
    """Record of the run, read once; None without a run."""

    @classmethod
    def open(cls, source: Location) -> "Artifacts":
        """Resolve a location or name, and read the record of a run.

        Raises:
            UsageError: the run folder is damaged.
        """
        if isinstance(source, Artifacts):
            return source
        text = os.fspath(source)
        folder = Path(text)
        return cls(text, folder, read_run(folder)) if is_run(folder) else cls(text)

    def __fspath__(self) -> str:
        return self.source

    def check_trainable(self, weights: Path | None = None, pretrained: bool | None = None) -> None:
        """Raise unless these are a run, or a model name with existing weights.

        Args:
            weights: weights file of a named model.
            pretrained: True requires published weights of a named model, and False random ones.

        Raises:
            UsageError: the run, model or file does not exist.
            MissingDependency: A timm name is given without timm.
        """
        if self.run is not None:
            check_own_weights(self.source, weights, pretrained)
            if not is_tree_run(self.record):
                weights_file(self.run)
            return
        if is_tree_file(Path(self.source)):
            return
        if is_factory(self.source):
            factory_parts(self.source)  # the contents are checked when the file is loaded
        else:
            network_name(self.source)
        if weights is not None:
            check_weights(weights)

    def fp32_file(self) -> Path:
        """Return the fp32 file of a run, or the model file itself.

        Raises:
            UsageError: neither exists.
        """
        path = Path(self.source) if self.run is None else self.run / "model.onnx"
        if path.is_file():
            return path
        if self.run is not None:
            refuse_export(self.source, self.record)
            raise UsageError(
                f"{self.source} has no model file yet. Export it first: kdedge export {self.source} --quantize"
            )
        if path.suffix == ".onnx":
            raise UsageError(
                f"There is no model file {path}.{file_hint(path)} Export it first: kdedge export MODEL -o {path}"
            )
        raise UsageError(
            f"There is no run folder {self.source}.{file_hint(path)} Create it first: kdedge distill DATA --teacher "
            f"TEACHER --student STUDENT --out {self.source}"
        )

    @property
    def left_out(self) -> tuple[str, ...]:
        """Classes of the dataset that a run was trained without; empty without a run."""
        return () if self.record is None else self.record.left_out

    def options_for(self, data: str) -> DatasetOptions:
        """Return the options of reading the dataset of a run, or other data like it; none without a run."""
        if self.record is None or self.run is None:
            return NO_OPTIONS
        modality = TRAINING_MODALITIES[self.record.input.kind]
        return modality.options_of_run(self.record.dataset_options, self.run, data)

    def dataset(self) -> str | None:
        """Return the dataset location that a run was trained with; None without a run.

        Raises:
            DataError: the dataset folder no longer exists.
        """
        if self.record is None:
            return None
        source = str(self.record.data["source"])
        if not source.startswith(TORCHVISION) and not is_shards(source) and not Path(source).exists():
            raise DataError(
                f"{self.source} was trained with the samples in {source}, which no longer exist. Give their location: "
                "--data DIR"
            )
        return source
