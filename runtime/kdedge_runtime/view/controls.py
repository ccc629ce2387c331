"""What watchers may change while the run goes on: the class to explain and the opacity of the heat."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kdedge_runtime.errors import UsageError
from kdedge_runtime.model import Model
from kdedge_runtime.runner import RunSettings

__all__ = ["Controls"]


@dataclass
class Controls:
    """The settings of the run from frame to frame: called by the run, changed by the view.

    A change replaces the settings as a whole, so that no frame sees half of one.
    """

    settings: RunSettings
    model: Model
    by_explainer: bool = False
    """Whether maps come from outside of the graph, which may then have none."""

    def __call__(self) -> RunSettings:
        """The settings for the next frame."""
        return self.settings

    @property
    def class_name(self) -> str | None:
        """The class that is explained in every frame; None explains the best one of each."""
        index = self.settings.class_index
        return None if index is None else self.model.metadata.labels[index]

    def change(self, wanted: Mapping[str, Any]) -> None:
        """Change what is named, all of it or nothing.

        Args:
            wanted: `class` (a label, or None for the best one of each frame) and `opacity` (in [0, 1]).

        Raises:
            UsageError: there is no such class or setting, or a value is out of its range.
        """
        settings = self.settings
        for name, value in wanted.items():
            if name == "class" and (value is None or isinstance(value, str)):
                index = None if value is None else self.model.class_index(value, by_explainer=self.by_explainer)
                settings = replace(settings, class_index=index)
            elif name == "opacity" and _is_share(value):
                settings = replace(settings, opacity=float(value))
            else:
                raise UsageError(
                    f"{name}: {value!r:.80} cannot be set. Expected class: LABEL or null, opacity: 0 to 1."
                )
        self.settings = settings


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1
