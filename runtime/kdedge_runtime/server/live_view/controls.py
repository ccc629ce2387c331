"""What watchers may change while the run goes on: the class to explain, the method, the opacity of the heat."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kdedge_runtime.errors import UsageError
from kdedge_runtime.model import Model
from kdedge_runtime.stream.runner import RunSettings

__all__ = ["Controls", "is_share"]

_BUDGET_MS = 500.0
"""Time for one frame of a method that asks the model again and again, where nobody said how much it may take."""


class Controls:
    """The settings of the run from frame to frame: called by the run, changed by the view.

    A change replaces the settings as a whole, so that no frame sees half of one.
    """

    def __init__(
        self, model: Model, settings: RunSettings, method: str | None = None, budget_ms: float | None = None
    ) -> None:
        """Begin with the settings that the run was started with.

        Args:
            model: that runs.
            settings: to begin with.
            method: that `settings.explainer` explains by; None for the file's own map.
            budget_ms: time for one frame of such a method.
        """
        self.model = model
        self.settings = settings
        self.method = method or model.metadata.outputs.method
        self._budget_ms = budget_ms or _BUDGET_MS
        self._changing = threading.Lock()

    def __call__(self) -> RunSettings:
        """The settings for the next frame."""
        return self.settings

    @property
    def class_name(self) -> str | None:
        """The class that is explained in every frame; None explains the best one of each."""
        index = self.settings.class_index
        return None if index is None else self.model.metadata.labels[index]

    @property
    def methods(self) -> list[str]:
        """What can explain this model, the file's own map first (`none` where it has none)."""
        # Here, since most runs never need it.
        from kdedge_runtime.explainers import METHODS

        # Score-CAM needs the target layer's activations, which a file without a map does not compute.
        asking = [method for method in METHODS if method != "scorecam" or self.model.has_map]
        return [self.model.metadata.outputs.method, *asking]

    def figures(self) -> dict[str, Any]:
        """The settings, ready for JSON."""
        return {"class": self.class_name, "method": self.method, "opacity": self.settings.opacity}

    def change(self, wanted: Mapping[str, Any]) -> None:
        """Change what is named, all of it or nothing.

        Args:
            wanted: `class` (a label, or None for the best one of each frame), `method` (one of `methods`) and
                `opacity` (in [0, 1]).

        Raises:
            UsageError: there is no such class, method or setting, or a value is out of its range.
        """
        with self._changing:  # two watchers may change something at once, and neither change may be lost
            self._change(wanted)

    def _change(self, wanted: Mapping[str, Any]) -> None:
        settings, method = self.settings, self.method
        # The method first: it decides whether a class can be explained at all.
        for name, value in sorted(wanted.items(), key=lambda item: item[0] != "method"):
            if name == "method" and value in self.methods:
                settings, method = replace(settings, explainer=self._explainer(value)), value
            elif name == "class" and (value is None or isinstance(value, str)):
                by_explainer = settings.explainer is not None
                index = None if value is None else self.model.class_index(value, by_explainer=by_explainer)
                settings = replace(settings, class_index=index)
            elif name == "opacity" and is_share(value):
                settings = replace(settings, opacity=float(value))
            else:
                raise UsageError(
                    f"{name}: {value!r:.80} cannot be set. Expected class: LABEL or null, opacity: 0 to 1, or method: "
                    f"{', '.join(self.methods)}."
                )
        self.settings, self.method = settings, method

    def _explainer(self, method: str) -> Any:
        if method == self.model.metadata.outputs.method:
            return None
        from kdedge_runtime.explainers import make_explainer

        return make_explainer(self.model, method, budget_ms=self._budget_ms)


def is_share(value: object) -> bool:
    """Whether a value of JSON is a number in [0, 1]; its whole numbers may be larger than any float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
