"""Choose the network of a time series model and its input: length, standardization and map resolution."""

import difflib
from collections.abc import Sequence

from kdedge.config.train_config import TrainConfig
from kdedge.data import DatasetIndex
from kdedge.data.window_statistics import measure_windows
from kdedge.models.model_spec import ModelSpec
from kdedge.models.series_network import SERIES_NETWORKS, SERIES_STRIDE
from kdedge.models.teacher_source import LoadedTeacher
from kdedge.models.trees import refuse_table_model
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.timeseries import TimeseriesInput

__all__ = ["check_series_network", "choose_series_network"]

_PREFIX = "series:"
_MIN_POSITIONS = 16
"""Map positions in time, as long as the window has so many steps."""


def check_series_network(name: str) -> str:
    """Return a network's name without its library.

    Raises:
        UsageError: there is no such network for time series.
    """
    bare = name.removeprefix(_PREFIX)
    if bare in SERIES_NETWORKS:
        return bare
    refuse_table_model(name, "time series", _PREFIX + next(iter(SERIES_NETWORKS)))
    near = difflib.get_close_matches(bare, SERIES_NETWORKS, n=1) or list(SERIES_NETWORKS)
    expected = " or ".join(_PREFIX + each for each in near)
    raise UsageError(f"There is no network {name!r} for time series. Expected {expected}.")


def choose_series_network(
    request: TrainConfig, teachers: Sequence[LoadedTeacher], dataset: DatasetIndex
) -> tuple[ModelSpec, TimeseriesInput]:
    """Choose the model and its input.

    Args:
        request: training options.
        teachers: teachers, which take the same windows.
        dataset: dataset index, whose training windows are standardized.

    Raises:
        UsageError: an option has no meaning for time series, or a teacher takes other windows.
        DataError: no training window can be read.
    """
    bare = check_series_network(request.model)
    if request.size is not None:
        raise UsageError("--size sets the side of images, but windows have the length of the data. Remove --size.")
    if request.flip:
        raise UsageError("--flip mirrors images, but a series has a direction in time. Remove --flip.")
    spec = measure_windows(dataset.train, dataset.source)
    for teacher in teachers:
        theirs = teacher.input
        differs = theirs.column_names and spec.column_names and theirs.column_names != spec.column_names
        if differs or not isinstance(theirs, TimeseriesInput) or theirs.shape != spec.shape:
            raise UsageError(
                f"The teacher {teacher.name} takes {theirs.summary}, but {dataset.source} has {spec.summary}: "
                f"{', '.join(spec.channels)}. Expected the same channels and length."
            )
    stride = _choose_stride(spec.length) if request.output_stride is None else request.output_stride
    if stride not in (1, 2, SERIES_STRIDE):
        raise UsageError(f"--output-stride is {stride}. Expected 1, 2 or {SERIES_STRIDE} steps per map position.")
    return ModelSpec(_PREFIX + bare, len(dataset.labels), SERIES_STRIDE // stride), spec


def _choose_stride(length: int) -> int:
    return next((stride for stride in (SERIES_STRIDE, 2) if length >= stride * _MIN_POSITIONS), 1)
