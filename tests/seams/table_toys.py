"""A small table of applicants with numbers, categories and missing values, whose answer depends on three columns."""

import csv
from pathlib import Path

import numpy as np

HEADER = ("income [EUR]", "age [years]", "job", "city", "noise", "answer")
JOBS = ("none", "worker", "clerk")


def make_rows(count: int, seed: int = 0, *, task: str = "classify") -> list[tuple[str, ...]]:
    """Draw rows; income and job decide, and age matters above 50."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        income, age, job = rng.gamma(4, 500), rng.uniform(18, 80), int(rng.integers(len(JOBS)))
        value = (income - 2000) / 800 + 1.5 * (job - 1) - 2 * max(0, age - 50) / 30 + rng.normal(0, 0.2)
        answer = f"{1000 + 300 * value:.1f}" if task == "regression" else ("yes" if value > 0 else "no")
        shown = "" if rng.random() < 0.1 else f"{income:.0f}"
        city = str(rng.choice(["north", "south"]))
        rows.append((shown, f"{age:.1f}", JOBS[job], city, f"{rng.normal():.3f}", answer))
    return rows


def write_table(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = HEADER) -> Path:
    """Write a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path
