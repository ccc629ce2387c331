"""Settings of a run: fixed ones, and live ones that may change from frame to frame."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdedge_runtime.drawing.heatmap import OPACITY
from kdedge_runtime.modalities import Region
from kdedge_runtime.model import Model
from kdedge_runtime.stream.schedule import ALWAYS, ExplainSchedule

if TYPE_CHECKING:
    from kdedge_runtime.explainers import Explainer

__all__ = ["LiveSettings", "StreamSettings"]


@dataclass(frozen=True)
class StreamSettings:
    """Settings that are fixed during a run."""

    max_frames: int | None = None
    """Maximum number of frames; None runs until the source ends."""
    cadence: ExplainSchedule = ALWAYS
    """Schedule of explained and drawn frames."""
    min_fps: float | None = None
    """Minimum frame rate in 1/s, on average; explanations are skipped to reach it. None for no minimum."""
    unknown: bool = True
    """True marks frames whose familiarity lies below the threshold of the model as unknown. Default True."""
    regions: tuple[Region, ...] = ()
    """Regions of every frame, predicted in one batch; empty for the whole frame."""
    smooth_s: float | None = None
    """Duration over which the scores of frames are averaged, in seconds; None for none."""
    refractory_s: float | None = None
    """Time after an event in which its label causes no further one, in seconds; None marks no events."""


@dataclass(frozen=True)
class LiveSettings:
    """Settings that may change during a run, such as from the live view."""

    class_index: int | None = None
    """Class to explain in every frame; None for the top-1 class of each."""
    opacity: float = OPACITY
    """Opacity of the heat map at full heat, in [0, 1]."""
    explainer: "Explainer | None" = None
    """Black-box explainer (see `kdedge_runtime.explainers`); None uses the map of the graph."""
    model: Model | None = None
    """Model of the run with classes that were enrolled since its start; None for the model of the run."""
