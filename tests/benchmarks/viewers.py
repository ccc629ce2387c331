"""Measure the cost of viewers: frame rate and CPU time per frame, with and without MJPEG clients.

```
kdedge export torchvision:mobilenet_v3_small --no-pretrained -o small.onnx
python tests/benchmarks/viewers.py small.onnx FILM.mp4 --viewers 50 --rounds 6
```

One run plays the video in a loop on one thread while clients connect and disconnect, in alternating rounds, so that a
busy machine affects both. Prints one JSON line: medians over the rounds.
"""

import argparse
import json
import multiprocessing
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

RUN = [sys.executable, "-c", "import sys; from kdedge_runtime.cli.main import main; sys.exit(main())"]
REQUEST = b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n"


def read_streams(port: int, count: int, seconds: float, report: "multiprocessing.connection.Connection") -> None:
    """Read streams; report how many were served, and the median frame rate per stream."""
    chosen = selectors.DefaultSelector()
    pictures: dict[int, int] = {}
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        connection.sendall(REQUEST)
        connection.setblocking(False)
        chosen.register(connection, selectors.EVENT_READ)
        pictures[connection.fileno()] = 0
    started = time.monotonic()
    while (left := seconds - (time.monotonic() - started)) > 0 and chosen.get_map():
        for key, _ in chosen.select(left):
            content = key.fileobj.recv(1 << 18)  # type: ignore[union-attr]
            pictures[key.fd] += content.count(b"Content-Type: image/jpeg")
            if not content:
                chosen.unregister(key.fileobj)
    rates = [seen / seconds for seen in pictures.values()]
    report.send((sum(rate > 0 for rate in rates), statistics.median(rates)))


def frames(port: int) -> int:
    """Return the number of processed frames."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics.json", timeout=10) as prediction:
        return int(json.load(prediction)["frames"])


def busy_s(process: int) -> float:
    """Return the CPU time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(port: int, process: int, viewers: int, seconds: float) -> tuple[float, float, int, float]:
    """Measure frame rate, CPU time per frame in ms, served viewers, and the frame rate of one viewer."""
    served, seen = 0, 0.0
    reader = None
    here, there = multiprocessing.Pipe(duplex=False)
    if viewers:
        reader = multiprocessing.Process(target=read_streams, args=(port, viewers, seconds + 2, there))
        reader.start()
    time.sleep(1)
    before, cpu, started = frames(port), busy_s(process), time.monotonic()
    time.sleep(seconds)
    count, taken_s, elapsed_s = frames(port) - before, busy_s(process) - cpu, time.monotonic() - started
    if reader is not None:
        served, seen = here.recv()
        reader.join()
    return count / elapsed_s, taken_s / count * 1e3, served, seen


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the cost of viewers.")
    parser.add_argument("model")
    parser.add_argument("film")
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--port", type=int, default=18181)
    arguments = parser.parse_args()
    options = [
        "--source",
        arguments.film,
        "--loop",
        "--threads",
        "1",
        "--view",
        str(arguments.port),
        "--jsonl",
        os.devnull,
    ]
    run = subprocess.Popen([*RUN, arguments.model, *options], stderr=subprocess.DEVNULL)
    try:
        time.sleep(8)
        rounds = [
            (
                measure(arguments.port, run.pid, 0, arguments.seconds),
                measure(arguments.port, run.pid, arguments.viewers, arguments.seconds),
            )
            for _ in range(arguments.rounds)
        ]
    finally:
        run.terminate()
        run.wait()
    alone, watched = zip(*rounds, strict=True)
    record = {
        "viewers": arguments.viewers,
        "served": min(each[2] for each in watched),
        "pictures_per_s": round(statistics.median(each[3] for each in watched), 1),
        "fps_alone": round(statistics.median(each[0] for each in alone), 1),
        "fps_watched": round(statistics.median(each[0] for each in watched), 1),
        "kept_of_fps": round(statistics.median(one[0] / other[0] for other, one in rounds), 3),
        "cpu_ms_per_frame_alone": round(statistics.median(each[1] for each in alone), 2),
        "cpu_ms_per_frame_watched": round(statistics.median(each[1] for each in watched), 2),
    }
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
