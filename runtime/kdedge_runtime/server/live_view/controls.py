"""Settings that clients can change during a run: explained class, method, opacity and enrolled classes."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kdedge_runtime.errors import UsageError
from kdedge_runtime.explainers import make_explainer, methods_for
from kdedge_runtime.model import Model
from kdedge_runtime.stream.settings import LiveSettings

__all__ = ["Controls", "is_share"]

_BUDGET_MS = 500.0
"""Default time limit of a black-box explainer, in milliseconds per frame."""


class Controls:
    """Run settings per frame: called by the run, changed by the view.

    A change replaces the whole settings object, so that no frame uses a mixture.
    """

    def __init__(
        self, model: Model, settings: LiveSettings, method: str | None = None, budget_ms: float | None = None
    ) -> None:
        """Create controls with the initial settings.

        Args:
            model: the running model.
            settings: initial settings.
            method: method of `settings.explainer`; None for the map of the model file.
            budget_ms: time limit per frame of a black-box explainer, in milliseconds.
        """
        self._model = model
        self.settings = settings
        self.revision = 0
        """Number of changes of the classes."""
        self.method = method or model.metadata.outputs.method
        self._budget_ms = budget_ms or _BUDGET_MS
        self._changing = threading.Lock()

    def __call__(self) -> LiveSettings:
        """Return the settings for the next frame."""
        return self.settings

    @property
    def model(self) -> Model:
        """Model that answers, with the classes enrolled so far."""
        return self.settings.model or self._model

    @property
    def class_name(self) -> str | None:
        """Class explained in every frame; None for the top-1 class of each."""
        settings = self.settings
        model = settings.model or self._model
        return None if settings.class_index is None else model.metadata.labels[settings.class_index]

    @property
    def methods(self) -> list[str]:
        """Available methods for this model, starting with the map of the file (`none` if it has no map)."""
        return [self.model.metadata.outputs.method, *methods_for(self.model)]

    def figures(self) -> dict[str, Any]:
        """Return the settings as a JSON-compatible dictionary."""
        return {"class": self.class_name, "method": self.method, "opacity": self.settings.opacity}

    def change(self, wanted: Mapping[str, Any]) -> None:
        """Change settings atomically.

        Args:
            wanted: `class` (a label, or None for the top-1 class of each frame), `method` (one of `methods`) and
            `opacity` (in [0, 1]).

        Raises:
            UsageError: a class, method or setting does not exist, or a value is out of range.
        """
        with self._changing:  # concurrent changes must not overwrite each other
            self._change(wanted)

    def use_model(self, model: Model) -> None:
        """Answer with other classes from the next frame. The explained class is kept if it still exists.

        Args:
            model: model of the run with other classes.
        """
        with self._changing:
            name, labels, explainer = self.class_name, model.metadata.labels, self.settings.explainer
            if explainer is not None:
                explainer = make_explainer(model, self.method, budget_ms=self._budget_ms)
            index = labels.index(name) if name in labels else None
            self.settings = replace(self.settings, model=model, class_index=index, explainer=explainer)
            self.revision += 1

    def _change(self, wanted: Mapping[str, Any]) -> None:
        settings, method = self.settings, self.method
        # The method comes first, because it determines whether a class can be explained.
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
                    f"{name}: {value!r:.80} is not a valid setting. Expected class: LABEL or null, opacity: 0 to 1, "
                    f"or method: {', '.join(self.methods)}."
                )
        self.settings, self.method = settings, method

    def _explainer(self, method: str) -> Any:
        if method == self.model.metadata.outputs.method:
            return None
        return make_explainer(self.model, method, budget_ms=self._budget_ms)


def is_share(value: object) -> bool:
    """Return True if a JSON value is a number in [0, 1]. Integers may be too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
