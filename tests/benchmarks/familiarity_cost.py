"""Measure the latency that the output `familiarity` adds to model files.

```
python tests/benchmarks/familiarity_cost.py MODEL.onnx [MODEL.onnx ...]
```

Each file is timed with and without the output, alternately in this process, on one thread, on one random image. Prints
the fastest of --rounds rounds of each, and the median ratio of paired rounds, which a busy machine changes least.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from kdedge_export.familiarity.file_familiarity import without_familiarity
from kdedge_export.modalities import modality_of
from kdedge_export.onnx_graph.session import make_feed, open_session
from kdedge_runtime import Model

_ROUND_S = 0.002
"""Approximate duration of a round, which averages several passes of a fast model."""


def paired_us(sessions: list[ort.InferenceSession], images: np.ndarray, rounds: int) -> np.ndarray:
    """Return mean latencies in microseconds, `[rounds, sessions]`; the order alternates between rounds."""
    feeds = [make_feed(session, images) for session in sessions]
    start = time.perf_counter()
    for session, feed in zip(sessions, feeds, strict=True):
        session.run(None, feed)
    passes = max(1, round(_ROUND_S * len(sessions) / (time.perf_counter() - start)))
    found = np.empty((rounds, len(sessions)))
    for number in range(rounds):
        for index in range(len(sessions))[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            for _ in range(passes):
                sessions[index].run(None, feeds[index])
            found[number, index] = (time.perf_counter() - start) / passes * 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=1000)
    options = parser.parse_args()
    print("| model | without | with | ratio |\n|---|---|---|---|")
    for path in options.models:
        spec = Model.load(path).metadata.input
        images = modality_of(spec).random_samples(spec, 1, np.random.default_rng(0))
        graphs = [onnx.load(path), without_familiarity(onnx.load(path))]
        sessions = [open_session(graph, exact_sums=False) for graph in graphs]
        found = paired_us(sessions, images, options.rounds)
        after, before = found.min(axis=0) / 1e3
        ratio = np.median(found[:, 0] / found[:, 1])
        print(f"| {path} | {before:.3f} ms | {after:.3f} ms | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    main()
