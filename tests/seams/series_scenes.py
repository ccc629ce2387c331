"""Rendered time series: a burst in one of two channels, or in none, at a random time."""

from pathlib import Path

import numpy as np

LABELS = ("quiet", "left", "right")
LENGTH, WIDTH = 64, 10
RATE_HZ = 20.0


def make_window(label: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Return a window `[T, 2]` and the first step of its burst."""
    window = rng.normal(0, 0.1, (LENGTH, 2))
    start = int(rng.integers(4, LENGTH - WIDTH - 4))
    if label:
        window[start : start + WIDTH, label - 1] += np.sin(np.arange(WIDTH) * np.pi / 2)
    return window + np.array((3.0, -1.0)), start


def write_archive(folder: Path, counts: dict[str, int]) -> Path:
    """Write `Bursts_TRAIN.ts` and so on with a number of cases each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for side, count in counts.items():
        lines = ["# rendered", "@problemName Bursts", "@timeStamps false", "@missing false", "@univariate false"]
        lines += ["@dimensions 2", "@equalLength true", f"@seriesLength {LENGTH}"]
        lines += [f"@classLabel true {' '.join(LABELS)}", "@data"]
        for number in range(count):
            window, _ = make_window(number % 3, rng)
            channels = (",".join(f"{value:.5f}" for value in channel) for channel in window.T)
            lines.append(":".join((*channels, LABELS[number % 3])))
        (folder / f"Bursts_{side}.ts").write_text("\n".join(lines) + "\n")
    return folder


def write_recording(file: Path, labels: list[int], *, seed: int = 0, is_labeled: bool = True) -> None:
    """Write a CSV file with windows of these classes one after another."""
    rng = np.random.default_rng(seed)
    lines = ["time_ms,left [g],right [g]" + ",activity" * is_labeled]
    for number, label in enumerate(labels):
        for step, values in enumerate(make_window(label, rng)[0]):
            time_ms = (number * LENGTH + step) * 1000 / RATE_HZ
            end = f",{LABELS[label]}" * is_labeled
            lines.append(f"{time_ms:.1f},{values[0]:.5f},{values[1]:.5f}{end}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
