"""Interface of a modality at export: graph front end, test inputs, corruptions and drawings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kdedge_export.html.thumbnails import jpeg_uri
from kdedge_runtime.modalities import Sample
from kdedge_runtime.util.arrays import Floats, Pixels

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Corruption", "ExportModality"]

Corruption: TypeAlias = Callable[[Sample, int], Sample]
"""Function of a preprocessed sample and its index, which seeds random numbers, to a corrupted sample."""


class ExportModality(ABC):
    """Modality at export. `spec` is always the modality's own `InputSpec` class."""

    def for_input(self, spec: Any) -> ExportModality:
        """Return the modality for one input, for methods without a `spec`; the modality itself by default."""
        return self

    @property
    def corruptions(self) -> Mapping[str, Corruption]:
        """Corruptions of the robustness table by name; none by default."""
        return {}

    @abstractmethod
    def front_end(self, spec: Any) -> nn.Module:
        """Return the first module of the graph, from samples `[N, *spec.shape]` to features `[N, C, h, w]`."""

    @abstractmethod
    def example(self, spec: Any) -> Tensor:
        """Return a deterministic output of the front end `[1, C, h, w]` for tracing a model."""

    @abstractmethod
    def random_samples(self, spec: Any, count: int, rng: np.random.Generator) -> Sample:
        """Draw preprocessed samples `[count, *spec.shape]` that cover the range of the input."""

    @abstractmethod
    def smoothed(self, sample: Sample) -> Sample:
        """Return a preprocessed sample without its details, from which the insertion curve starts."""

    def baseline_maps(self, spec: Any, samples: Sample) -> dict[str, Floats]:
        """Return maps `[N, *spec.mask_size]` that depend on the samples only, by name; none by default."""
        return {}

    @property
    def mirrored_axes(self) -> Sequence[tuple[int, int]]:
        """Axis of samples `[N, …]` and axis of maps `[N, h, w]` for each direction that can be mirrored.

        Mirrored samples reveal the displacement of a map's content. None by default.
        """
        return ()

    def display_samples(self, spec: Any, count: int) -> Sample | None:
        """Return samples `[count, *spec.shape]` on which the display of maps is measured; None by default."""
        return None

    drawn_name = "drawn samples"
    """Name of the result of `unfamiliar_samples` in reports."""

    def unfamiliar_samples(self, spec: Any, count: int) -> Sample | None:
        """Draw samples `[count, *spec.shape]` that belong to no class of any model; None by default."""
        return None

    @property
    def has_wide_figures(self) -> bool:
        """True for figures with text, which pages show two in a row instead of one per model; False by default."""
        return False

    @property
    def has_layer_attribution(self) -> bool:
        """True if the contributions of layers can be drawn over a sample; False by default."""
        return False

    @property
    def map_legend(self) -> str:
        """Sentence on pages about the drawing of maps."""
        return (
            "The heat map shows the evidence for the class on each map’s own scale: where the evidence lies, not how "
            "strong it is."
        )

    def figure_uri(self, figure: Pixels) -> str:
        """Encode a thumbnail or an overlay as a `data:` URI for pages; JPEG by default."""
        return jpeg_uri(figure)

    @abstractmethod
    def thumbnail(self, sample: Sample, maps: Sequence[Floats] = ()) -> Pixels:
        """Draw a preprocessed sample for the report, uint8 RGB.

        Args:
            sample: preprocessed sample.
            maps: raw signed maps that are drawn next to it, as in `overlay`; a row shows their strongest columns.
        """

    @abstractmethod
    def overlay(self, sample: Sample, saliency_map: Floats, shift: tuple[float, float]) -> Pixels:
        """Draw a preprocessed sample with its raw map `[h, w]` for the report, uint8 RGB.

        Args:
            sample: preprocessed sample.
            saliency_map: raw signed map; values that are not finite count as zero.
            shift: displacement of its content, in map positions (`MapDisplay.shift`).
        """
