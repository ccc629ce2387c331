"""Interface of a modality at inference: its samples, their preprocessing, perturbation and rendering."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kdedge_runtime.errors import UsageError

if TYPE_CHECKING:
    from kdedge_runtime.drawing.heatmap import HeatStats
    from kdedge_runtime.prediction import Prediction
    from kdedge_runtime.sources.source import Source
    from kdedge_runtime.util.arrays import Floats, Integers, Pixels

__all__ = ["BrowserSensor", "InputSpec", "Region", "Renderer", "Sample"]

Sample: TypeAlias = NDArray[Any]
"""Raw sample of a source, such as an image uint8 RGB `[H, W, 3]`; after preprocessing with the shape of the input."""


BrowserSensor: TypeAlias = Literal["camera", "microphone"]
"""Sensors that browsers open, by their names in a Permissions-Policy."""


class Region(Protocol):
    """Named part of every raw sample of a run, such as a rectangle of an image. Each part is predicted by itself."""

    @property
    def name(self) -> str:
        """Name in outputs, unique within a run."""

    def cut(self, sample: Sample) -> Sample:
        """Return the part of a raw sample.

        Raises:
            UsageError: the part exceeds the sample.
        """


class Renderer(Protocol):
    """Renders the predictions of one run as images."""

    def update_scale(self, prediction: "Prediction") -> None:
        """Update the display scale; called for every frame, also for those that are not drawn."""

    def render(self, prediction: "Prediction", opacity: float) -> "Pixels":
        """Return the frame with the saliency map and the caption of every region, uint8 RGB `[H, W, 3]`.

        Args:
            prediction: prediction to draw, with those of the further regions.
            opacity: opacity of the map at full heat, in [0, 1].
        """


@dataclass(frozen=True)
class InputSpec(ABC):
    """Input specification of a model: a frozen dataclass of JSON values, stored in the model file.

    The fields `kind` and `name` name the modality and the graph input.
    """

    @property
    @abstractmethod
    def kind(self) -> str:
        """Name of the modality, its key in `INPUT_SPECS`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the graph input."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one preprocessed sample, without the batch."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Data type of the graph input."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """Short description with units, such as `224 × 224 px`."""

    @classmethod
    @abstractmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Parse the metadata of a model file. Unknown keys are ignored.

        Raises:
            KeyError, TypeError, ValueError: a value is missing or invalid.
        """

    @abstractmethod
    def preprocess(self, sample: Sample) -> Sample:
        """Convert a raw sample to the shape and dtype of the input; shared by training, validation and the device."""

    @property
    @abstractmethod
    def preprocessing_id(self) -> str:
        """String that is equal for inputs with the same preprocessing, for caches."""

    @abstractmethod
    def reference_sample(self, seed: int) -> Sample:
        """Generate a preprocessed sample for self-tests, identical on every machine."""

    @abstractmethod
    def map_stats(self, saliency_map: "Floats", sample: Sample, shift: tuple[float, float]) -> "HeatStats":
        """Compute the location and spread of a map `[h, w]` on a raw sample.

        Args:
            saliency_map: raw signed map.
            sample: raw sample of the frame.
            shift: offset of the map content in map positions, see `MapDisplay`.
        """

    def as_sample(self, value: Any) -> Sample:
        """Convert a sample of a program to a raw sample, such as a row of a table; to an array by default.

        Raises:
            SourceError: the value is no sample of this modality.
        """
        return np.asarray(value)

    def unseen(self, sample: Sample) -> dict[str, str]:
        """Return the categories of a raw sample that the model does not have, by column; empty by default."""
        return {}

    def reasons(self, sample: Sample, saliency_map: "Floats", count: int) -> list[dict[str, Any]]:
        """Return the largest contributions to the explained output by name; empty if positions have no names.

        Args:
            sample: raw sample.
            saliency_map: raw signed map `[h, w]`.
            count: maximum number of contributions.

        Returns:
            JSON values: name, value and `contribution`, largest magnitude first.
        """
        return []

    @abstractmethod
    def renderer(self, *, moving: bool, fps: float | None) -> Renderer:
        """Create a renderer.

        Args:
            moving: True if frames follow one another in time. Their maps then share a smoothed scale.
            fps: frame rate of a recording that is not played in real time; None uses the capture times.
        """

    @abstractmethod
    def draw_explanation(self, prediction: "Prediction", opacity: float) -> "Pixels":
        """Draw a sample with its map for a file, without a caption; uint8 RGB.

        Args:
            prediction: prediction to draw.
            opacity: opacity of the map at full heat, in [0, 1].
        """

    @abstractmethod
    def draw_sample(self, sample: Sample) -> "Pixels":
        """Draw a raw sample without its map, uint8 RGB, for the live view and for feedback."""

    @property
    @abstractmethod
    def sample_suffix(self) -> str:
        """Suffix of files with one raw sample, such as `.jpg`."""

    @property
    def sample_noun(self) -> str:
        """Name of one sample of a source on pages, with a plural in `s`; `frame` by default."""
        return "frame"

    @property
    def has_boxes(self) -> bool:
        """True if boxes mark objects in samples; False by default."""
        return False

    @property
    def has_overlay(self) -> bool:
        """True if maps are blended over samples with an opacity, the default; False if they are charts."""
        return True

    def evidence_legend(self, *, has_values: bool) -> str:
        """Return a sentence that explains a drawn map, with `{}` for the explained label.

        Args:
            has_values: True if the label is the name of a value; False if it is a class.
        """
        return "The heat map shows the evidence for {}."

    @abstractmethod
    def encode_sample(self, sample: Sample) -> bytes:
        """Encode a raw sample as a file that training can read, for feedback and recordings."""

    @property
    @abstractmethod
    def mask_size(self) -> tuple[int, int]:
        """Height and width of the masks of black-box explainers."""

    def positions(self, map_size: tuple[int, int]) -> int:
        """Return the number of positions of a map `(h, w)` along its shorter axis; axes without extent are ignored."""
        return min((side for side, full in zip(map_size, self.mask_size, strict=True) if full > 1), default=1)

    @abstractmethod
    def mask(self, sample: Sample, keep: "Floats", fill: Sample | None = None) -> Sample:
        """Hide parts of a preprocessed sample.

        Args:
            sample: preprocessed sample.
            keep: visibility `[n, *mask_size]` in [0, 1]; 0 hides a position, values in between blend.
            fill: preprocessed sample shown at hidden positions; None for the value that normalizes to zero.

        Returns:
            Preprocessed samples `[n, *shape]`.
        """

    @abstractmethod
    def segments(self, sample: Sample, count: int) -> "Integers":
        """Segment a preprocessed sample into at most `count` parts, int64 `mask_size`, numbered without gaps."""

    @classmethod
    def parse_regions(cls, texts: Sequence[str]) -> tuple[Region, ...]:
        """Parse the values of `--crop`, at least one.

        Raises:
            UsageError: a value is invalid, or samples of this modality have no regions.
        """
        raise UsageError(f"--crop needs images, but the model takes other samples ({cls.__name__}). Remove --crop.")

    def region_warnings(self, regions: Sequence[Region], sample: Sample) -> tuple[str, ...]:
        """Return a sentence for each region that the model receives only in part.

        Args:
            regions: regions of a run, from `parse_regions`.
            sample: first raw sample of the run.
        """
        return ()

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns of a sample in their order; none by default."""
        return ()

    @property
    def hop_s(self) -> float | None:
        """Default interval between the windows of a recording in seconds; None for samples without windows."""
        return None

    @property
    def browser_sensor(self) -> BrowserSensor | None:
        """Sensor that the page of `kdedge web` reads; None if the page has none for these samples, the default."""
        return None

    @property
    def example_source(self) -> str:
        """Value of `--source` in suggested commands: a sensor, or `FILE` without one, the default."""
        return "FILE"

    def check_sample_file(self, path: Path) -> None:
        """Raise unless a file or folder may hold samples; by default `open_source` reports it.

        Raises:
            SourceError: the file is of another type. The error names no sources other than files.
        """
        return

    @abstractmethod
    def open_source(
        self,
        uri: str,
        frames: Literal["all", "latest"] | None = None,
        stop: threading.Event | None = None,
        *,
        loop: bool = False,
        hop_s: float | None = None,
    ) -> "Source":
        """Create the source of a `--source` value; devices and files are opened on entering it.

        Args:
            uri: source to read.
            frames: `all` returns every frame in order, `latest` only the newest one. None is `latest` for live sources.
            stop: event that ends waits for live frames.
            loop: True restarts at the end of a file or folder.
            hop_s: interval between windows in seconds; None takes the input's `hop_s`.

        Raises:
            SourceError: the file does not exist.
            UsageError: the value is invalid, or `hop_s` is given for samples without windows.
        """
