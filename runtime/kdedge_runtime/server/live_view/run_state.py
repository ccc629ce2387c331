"""Statistics of a run as JSON-compatible dictionaries."""

from dataclasses import asdict
from typing import Any

from kdedge_runtime.prediction import Answer
from kdedge_runtime.server.live_view.machine_state import MachineState
from kdedge_runtime.stream.statistics import Progress

__all__ = ["answer_figures", "machine_figures", "run_figures"]


def answer_figures(serial: int, answer: Answer) -> dict[str, Any]:
    """Return one prediction."""
    return {
        "serial": serial,
        "frame": answer.frame.index,
        "name": answer.frame.name,
        "age_ms": round(answer.age_ms, 2),
        "label": answer.label,
        "p": round(answer.probability, 5),
        "ranking": [{"label": label, "p": round(p, 5)} for label, p in answer.ranking],
        "explained": answer.explained,
        "left_out": answer.left_out,
        "heat": None if answer.heat is None else asdict(answer.heat),
    }


def run_figures(progress: Progress) -> dict[str, Any]:
    """Return counters and stage latencies."""
    return {
        "frames": progress.frames,
        "expected": progress.expected,
        "dropped": progress.dropped,
        "unreadable": progress.unreadable,
        "reconnects": progress.reconnects,
        "fps": round(progress.recent_fps, 2),
        "stages": {
            name: {key: round(value, 3) for key, value in asdict(stage).items() if key != "count"}
            for name, stage in progress.timer.stages().items()
        },
    }


def machine_figures(machine: MachineState) -> dict[str, Any]:
    """Return the machine state; unavailable values are null or empty."""
    return asdict(machine.board) | {"memory_mb": None if machine.memory_mb is None else round(machine.memory_mb, 1)}
