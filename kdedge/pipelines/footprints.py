"""Measure size, latency and memory of model files on this machine."""

import os
import subprocess
import sys
from collections.abc import Mapping

import numpy as np

from kdedge_export.validation import Footprint
from kdedge_runtime import Model
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.util.timing import latencies_ms

__all__ = ["measure_footprints"]

# On Linux `ru_maxrss` includes the peak memory of the parent process, `VmHWM` does not.
_PROBE = """
import sys
import numpy as np
from kdedge_runtime import Model
model = Model.load(sys.argv[1], threads=int(sys.argv[2]))
spec = model.metadata.input
model.predict(np.zeros((1, *spec.shape), spec.dtype))
if sys.platform == "linux":
    with open("/proc/self/status") as status:
        print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")))
else:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS
"""


def measure_footprints(files: Mapping[str, Model], parameters: int, threads: int = 1) -> dict[str, Footprint]:
    """Measure size, latency and memory of model files; latencies are measured alternately.

    Args:
        files: files of the same model.
        parameters: parameter count of the model.
        threads: threads per inference.

    Raises:
        KdedgeError: A file cannot be run in a separate process.
    """
    opened = [Model.load(model.path, threads=threads) for model in files.values()]
    spec = opened[0].metadata.input
    blank = np.zeros((1, *spec.shape), spec.dtype)
    taken_ms = latencies_ms(*[lambda model=model: model.predict(blank) for model in opened])
    return {
        role: Footprint(
            parameters=parameters,
            file_mb=model.path.stat().st_size / 1e6,
            latency_ms=milliseconds,
            threads=threads,
            peak_memory_mb=_peak_memory_mb(model, threads),
        )
        for (role, model), milliseconds in zip(files.items(), taken_ms, strict=True)
    }


def _peak_memory_mb(model: Model, threads: int) -> float | None:
    if sys.platform == "win32":
        return None
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, str(model.path.resolve()), str(threads)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    if done.returncode:
        raise KdedgeError(f"{model.path} cannot be run in a separate process: {done.stderr.strip()[-300:]}")
    return int(done.stdout) / 1e6
