"""Latency of a model on this machine: with and without its map, in each precision, and per layer."""

import json
import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from kdedge_runtime.candidate import Candidate
from kdedge_runtime.diagnostics.plain_model import keep_output
from kdedge_runtime.diagnostics.system_state import SystemState, Throttling, read_system_state
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.model import Model
from kdedge_runtime.onnx_session import run_session
from kdedge_runtime.util.progress import ProgressCallback, no_progress
from kdedge_runtime.util.timing import Stopwatch

__all__ = ["BenchmarkResult", "LayerTime", "Timing", "run_benchmark", "unsupported_reason"]

_log = logging.getLogger(__name__)
WARM_UPS = 5
RUNS = 50
_STATE_EVERY_S = 0.5
_SPINNING = "session.intra_op.allow_spinning"
_PROFILED_RUNS = 10
_LAYERS_SHOWN = 12
_KERNEL = "_kernel_time"
"""Suffix of kernel events in the profile, after the node name."""


@dataclass(frozen=True)
class Timing:
    """Latency of one model variant at batch size 1."""

    name: str
    p50_ms: float
    p25_ms: float
    p75_ms: float
    ratio: float
    """Median ratio of its latency to that of the first variant in the same round."""
    ratio_p25: float
    ratio_p75: float


@dataclass(frozen=True)
class LayerTime:
    """One node of the optimized graph, after onnxruntime's operator fusion."""

    name: str
    operator: str
    mean_ms: float
    share: float
    """Share of the total node time, in [0, 1]."""


@dataclass(frozen=True)
class BenchmarkResult:
    """Result of a benchmark. It contains no timings if the board was throttled."""

    throttling: tuple[str, ...]
    before: SystemState
    after: SystemState
    timings: tuple[Timing, ...] = ()
    layers: tuple[LayerTime, ...] = ()
    """Layers of the first variant, slowest first."""

    def to_json(self) -> str:
        """Return the result as one JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def table(self) -> str:
        """Return the result as a text table."""
        lines = [f"board before: {self.before}", f"board after:  {self.after}", ""]
        width = max(len(timing.name) for timing in self.timings)
        first = self.timings[0].name
        lines.append(f"{'':{width}}  median ms  25 to 75%        times {first}")
        for timing in self.timings:
            spread = f"{timing.p25_ms:.2f} to {timing.p75_ms:.2f}"
            ratio = f"{timing.ratio:.3f}  ({timing.ratio_p25:.3f} to {timing.ratio_p75:.3f})"
            lines.append(f"{timing.name:{width}}  {timing.p50_ms:9.2f}  {spread:14}  {ratio}")
        lines += ["", f"layers of {first}: mean ms, share"]
        for layer in self.layers[:_LAYERS_SHOWN]:
            lines.append(f"{layer.mean_ms:9.3f} {layer.share:6.1%}  {layer.operator:18} {layer.name}")
        left = self.layers[_LAYERS_SHOWN:]
        if left:
            together = sum(layer.mean_ms for layer in left)
            lines.append(f"{together:9.3f} {sum(layer.share for layer in left):6.1%}  {len(left)} more")
        return "\n".join(lines)


def run_benchmark(
    models: Mapping[Candidate, Model],
    *,
    runs: int = RUNS,
    read_state: Callable[[], SystemState] = read_system_state,
    progress: ProgressCallback = no_progress,
) -> BenchmarkResult:
    """Measure models in turn, each with its map and, if it has one, without it.

    Each round runs every variant once, in rotating order, so that a slowdown affects all variants. Ratios compare runs
    of the same round. The first rounds are warm-up. The board state is read twice a second.

    Args:
        models: models of the candidates; the first is the reference.
        runs: number of measured rounds.
        read_state: function that reads the board state.
        progress: called after every round.

    Returns:
        Timings; none if the board was throttled during the measurement.
    """
    variants = {name: call for key, model in models.items() for name, call in _variants(key.name, model).items()}
    names = list(variants)
    watches = {name: Stopwatch() for name in names}
    before = read_state()
    throttling = Throttling(before)
    next_state_s = 0.0
    for number in range(WARM_UPS + runs):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            with watches[name]:
                variants[name]()
        if time.monotonic() >= next_state_s:  # not every round, because it starts a firmware tool
            throttling.add(read_state())
            next_state_s = time.monotonic() + _STATE_EVERY_S
        progress("measuring", number + 1, WARM_UPS + runs)
    after = read_state()
    throttling.add(after)
    if throttling.reasons:
        return BenchmarkResult(throttling.reasons, before, after)
    taken = {name: np.array(watch.laps_ms[WARM_UPS:]) for name, watch in watches.items()}
    timings = tuple(_timing(name, taken[name], taken[names[0]]) for name in names)
    return BenchmarkResult((), before, after, timings, _layers(next(iter(models.values()))))


def unsupported_reason(throttling: Sequence[str]) -> KdedgeError:
    """Return the error for a throttled board, on which timings would not be representative."""
    return KdedgeError(
        f"The board was throttled during the measurement ({', '.join(throttling)}), so no timings are reported. Use "
        "a stronger power supply or more cooling, let the board cool down, and run this again."
    )


def _variants(key: str, model: Model) -> dict[str, Callable[[], object]]:
    spec = model.metadata.input
    feed = {spec.name: spec.reference_sample(0)[None]}
    calls: dict[str, Callable[[], object]] = {key: lambda: run_session(model.session, None, feed, model.path)}
    if model.has_map:
        try:
            plain = _like(model, keep_output(model.path.read_bytes(), "logits"))
        except ValueError as error:
            _log.warning("%s cannot be measured without its map: %s.", model.path.name, error)
        else:
            calls[f"{key} without map"] = lambda: run_session(plain, None, feed, model.path)
    return calls


def _like(model: Model, content: bytes, profile: Path | None = None) -> ort.InferenceSession:
    """Open a session for other content with the settings of a model, optionally writing a profile."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    of_model = model.session.get_session_options()
    options.intra_op_num_threads = of_model.intra_op_num_threads
    options.add_session_config_entry(_SPINNING, of_model.get_session_config_entry(_SPINNING))
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return ort.InferenceSession(content, options, providers=[model.provider])


def _timing(name: str, taken_ms: np.ndarray[Any, Any], first_ms: np.ndarray[Any, Any]) -> Timing:
    p25, p50, p75 = np.percentile(taken_ms, [25, 50, 75])
    low, middle, high = np.percentile(taken_ms / first_ms, [25, 50, 75])
    return Timing(name, *(float(value) for value in (p50, p25, p75, middle, low, high)))


def _layers(model: Model) -> tuple[LayerTime, ...]:
    """Measure the time per node with onnxruntime's profiler, in a separate session because profiling adds overhead."""
    spec = model.metadata.input
    feed = {spec.name: spec.reference_sample(0)[None]}
    with tempfile.TemporaryDirectory() as folder:
        session = _like(model, model.path.read_bytes(), Path(folder) / "profile")
        for _ in range(WARM_UPS + _PROFILED_RUNS):
            run_session(session, None, feed, model.path)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(_KERNEL):
            taken[event["name"].removesuffix(_KERNEL), event["args"]["op_name"]].append(event["dur"] / 1e3)
    means = {node: sum(times[WARM_UPS:]) / _PROFILED_RUNS for node, times in taken.items()}
    total = sum(means.values())
    layers = [LayerTime(name, operator, mean, mean / total) for (name, operator), mean in means.items()]
    return tuple(sorted(layers, key=lambda layer: -layer.mean_ms))
