"""Statistics of a run as JSON-compatible dictionaries."""

from dataclasses import asdict
from typing import Any

from kdedge_runtime.prediction import Prediction
from kdedge_runtime.server.live_view.machine_state import MachineState
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.tasks import TASKS

__all__ = ["describe_prediction", "describe_machine", "describe_run"]

_SMALL = 0.0995
"""Share whose text has more digits: 10% when rounded."""


def describe_prediction(serial: int, prediction: Prediction, region: str | None = None) -> dict[str, Any]:
    """Return the prediction for one region of a frame, and the labels of all regions.

    Args:
        serial: serial number of the frame.
        prediction: prediction for the frame.
        region: name of the region; None for the first one.

    Raises:
        UsageError: there is no such region.
    """
    regions = [
        # The score of an unknown region is that of its nearest class, which its label does not name.
        {
            "name": each.region_name,
            "label": each.answer,
            each.score_key: None if each.unknown else round(each.score, 5),
            "text": "" if each.unknown else _text(each, each.score),
        }
        for each in prediction.by_region
    ]
    named = [] if prediction.region is None else regions
    prediction = prediction.of_region(region)
    key, task = prediction.score_key, TASKS[prediction.task]
    return {
        "serial": serial,
        "frame": prediction.frame.index,
        "name": prediction.frame.name,
        "region": prediction.region_name,
        "regions": named,
        "age_ms": round(prediction.age_ms, 2),
        "label": prediction.label,
        key: round(prediction.score, 5),
        "score_name": task.score_name,
        "familiarity": None if prediction.familiarity is None else round(prediction.familiarity, 5),
        "unknown": prediction.unknown,
        "unseen": prediction.unseen,
        "ranking": [
            {"label": label, key: round(score, 5), "text": _text(prediction, score), "share": task.share(score)}
            for label, score in prediction.ranking
        ],
        "explained": prediction.explained,
        "skip_reason": prediction.skip_reason,
        "heat": None if prediction.heat is None else asdict(prediction.heat),
    }


def _text(prediction: Prediction, score: float) -> str:
    """Return a score with its unit; small percentages have a decimal."""
    task = TASKS[prediction.task]
    share = task.share(score)
    return task.format_score(score, 1 if share is not None and share < _SMALL else 0)


def describe_run(progress: RunProgress) -> dict[str, Any]:
    """Return counters and stage latencies."""
    return {
        "frames": progress.frames,
        "expected": progress.expected,
        "dropped": progress.dropped,
        "unreadable": progress.unreadable,
        "reconnects": progress.reconnects,
        "unknown_frames": progress.unknown,
        "fps": round(progress.recent_fps, 2),
        "stages": {
            name: {key: round(value, 3) for key, value in asdict(stage).items() if key != "count"}
            for name, stage in progress.timer.stages().items()
        },
    }


def describe_machine(machine: MachineState) -> dict[str, Any]:
    """Return the machine state; unavailable values are null or empty."""
    return asdict(machine.board) | {"memory_mb": None if machine.memory_mb is None else round(machine.memory_mb, 1)}
