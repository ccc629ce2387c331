"""The terms of a distillation loss. Each is a pure function of a `Lesson`; a run minimises their weighted sum."""

from collections.abc import Callable

from torch import Tensor

from kdedge.distill.lesson import Lesson
from kdedge.distill.losses.ce import cross_entropy
from kdedge.distill.losses.kd import soft_labels
from kdedge.distill.losses.maps import all_class_maps, top_class_map

__all__ = ["MAP_TERMS", "SOFTENED_TERMS", "TAUGHT_TERMS", "TERMS"]

TERMS: dict[str, Callable[[Lesson], Tensor]] = {
    "ce": cross_entropy,
    "kd": soft_labels,
    "map": top_class_map,
    "mapall": all_class_maps,
}
"""Term name, as `--loss` takes it, to its function."""

MAP_TERMS = frozenset({"map", "mapall"})
"""Terms that look at saliency maps."""

SOFTENED_TERMS = frozenset({"kd", "mapall"})
"""Terms that depend on the temperature."""

TAUGHT_TERMS = MAP_TERMS | {"kd"}
"""Terms that need a teacher."""
