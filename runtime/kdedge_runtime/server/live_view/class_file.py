"""File of enrolled classes that a view extends while the run goes on."""

import threading
from pathlib import Path

from kdedge_runtime.enrolled_classes import EnrolledClass, EnrolledClasses, check_class_name
from kdedge_runtime.errors import UsageError
from kdedge_runtime.model import Model
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.server.live_view.controls import Controls

__all__ = ["ClassFile"]


class ClassFile:
    """Adds shown frames to enrolled classes, in their file and in the running model."""

    def __init__(self, path: Path, model: Model, controls: Controls) -> None:
        """Create a class file without reading it.

        Args:
            path: file of enrolled classes; it may be missing until the first frame is added.
            model: model as loaded from its file.
            controls: controls of the run, which receive the model with the new classes.
        """
        self._path, self._model, self._controls = path, model, controls
        self._changing = threading.Lock()

    def add(self, name: str, prediction: Prediction) -> EnrolledClass:
        """Add a frame or region to a class, which may be new, and answer with it from the next frame.

        The file is read before, so that samples enrolled by other programs are kept.

        Raises:
            UsageError: the name cannot be used, or the prediction has no embedding.
            DataError: the file is damaged or of another model.
            KdedgeError: the file cannot be written, or another program locks its folder.
        """
        if prediction.embedding is None:
            raise UsageError("This frame has no embedding. Start the run with an embedding model.")
        rows, name = prediction.embedding[None], check_class_name(name)
        with self._changing:
            classes = EnrolledClasses.update(self._path, self._model, lambda before: before.add(name, rows))
            self._controls.use_model(classes.apply_to(self._model))
        return next(each for each in classes.classes if each.name == name)
