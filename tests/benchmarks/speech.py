"""Measure spotted words of a continuous recording: a new speaker, unknown words and a noisy room.

```
python tests/benchmarks/speech.py spoken-digits.zip --embedding embedding_model.onnx
```

Spoken digits of five speakers (Free Spoken Digit Dataset, CC BY-SA 4.0). Each fold leaves out one speaker, and trains
on the digits zero to seven of the other four, and on drawn room noise as the class `_silence_`. Eight and nine are
words that the model does not know. The teacher is Google's speech embedding with a fitted last layer; the student is
distilled from it with soft labels and maps, and exported to int8.

The speaker then speaks all digits in random order into a room with other noise, which lies 30 dB below the words on
average, with pauses of one to two seconds, followed by minutes of noise alone. `kdedge run` predicts the recording
every 0.1 s, as from a microphone, and marks events. A word counts as found if an event of its label ends within the
word or at most one window after it. Any other event then is a wrong word. Events elsewhere are false alarms. Delay is
the time from the end of a word to the end of the window of its event. Nothing is selected on the left-out speaker.
Prints one JSON line per speaker and a table, and draws answers for the last speaker to answers.png in --out. Complete
runs are not repeated.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from answer_sheet import write_sheet
from quality import kdedge

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo")
KNOWN, UNKNOWN = tuple("01234567"), tuple("89")
RATE_HZ, WINDOW_S = 8000, 1.0
SILENCE, SILENCES = "_silence_", 200
SPOKEN = 10
"""Takes of each digit in the recording."""
QUIET_S = 1200
"""Noise without words behind them."""
NOISE_DB = -30
RECIPE = """
[loss]
ce = 0.1
kd = 0.9
mapall = 20

[augmentation]
shift = 0.15
geometry = 0.5
photometric = 1.0
erase = 0.3
"""
COLUMNS = {
    "found": "words found %",
    "wrong": "taken for another %",
    "accepted": "eight or nine taken for a word %",
    "found_without": "found, `--no-unknown` %",
    "wrong_without": "taken for another, `--no-unknown` %",
    "accepted_without": "eight or nine, `--no-unknown` %",
    "alarms": "false alarms per hour of noise",
    "delay": "delay s",
}
Sound = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Word:
    """Word in the recording, with its times in seconds."""

    label: str
    start_s: float
    end_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="spoken-digits.zip")
    parser.add_argument("--embedding", type=Path, required=True, help="embedding_model.onnx of the speech embedding")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--views", type=int, default=8, help="cached views of the teacher")
    parser.add_argument("--speakers", nargs="+", default=SPEAKERS)
    parser.add_argument("--out", type=Path, default=Path("runs/speech"))
    options = parser.parse_args()
    digits = options.out / "digits"
    if not digits.exists():
        with zipfile.ZipFile(options.archive) as opened:
            opened.extractall(digits)
    results = []
    for number, speaker in enumerate(options.speakers):
        fold = options.out / speaker
        write_data(digits, fold / "data", speaker, np.random.default_rng((0, number)))
        model = train(options, fold)
        words, spoken_s = write_recording(digits, fold / "recording.wav", speaker, np.random.default_rng((1, number)))
        result = {"speaker": speaker, **measure(model, fold / "recording.wav", words, spoken_s)}
        results.append(result)
        print(json.dumps(result), flush=True)
    print(table(results))
    draw(model, digits, speaker, options.out / "answers.png")


def write_data(digits: Path, data: Path, speaker: str, rng: np.random.Generator) -> None:
    """Write the known words of the other speakers and drawn noise, with every tenth take for validation."""
    if data.exists():
        return
    partial = data.with_name("data.partial")
    for file in sorted(digits.rglob("*.wav")):
        who, take = file.stem.split("_")
        if who != speaker and file.parent.name in KNOWN:
            target = partial / ("val" if int(take) % 10 == 0 else "train") / file.parent.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    for number in range(SILENCES):
        target = partial / ("val" if number % 10 == 0 else "train") / SILENCE / f"{number:03}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, room(WINDOW_S, rng) * 10 ** rng.uniform(-2.5, -1), RATE_HZ)
    partial.replace(data)


def room(seconds: float, rng: np.random.Generator) -> Sound:
    """Draw the noise of a room: a random slope of its spectrum, a hum, and a slowly changing level."""
    samples = round(seconds * RATE_HZ)
    spectrum = np.fft.rfft(rng.normal(size=samples))
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / RATE_HZ), 20)
    noise = np.fft.irfft(spectrum * frequency ** rng.uniform(-1.2, 0), samples)
    noise /= noise.std()
    times = np.arange(samples) / RATE_HZ
    noise += rng.uniform(0, 0.7) * np.sin(2 * math.pi * rng.choice([50, 60, 100, 120]) * times)
    noise *= 1 + rng.uniform(0, 0.5) * np.sin(2 * math.pi * rng.uniform(0.1, 0.5) * times + rng.uniform(0, 6))
    return np.asarray(noise / noise.std(), np.float32)


def train(options: argparse.Namespace, fold: Path) -> Path:
    """Train the teacher, and distill and export the student."""
    data, teacher, run = fold / "data", fold / "teacher", fold / "student"
    network = ["--model", "audio:speech_embedding", "--weights", str(options.embedding.resolve()), "--freeze"]
    kdedge("train", str(data), *network, "--window", f"{WINDOW_S}s", "--out", str(teacher))
    recipe = fold / "recipe.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    taught = ["--teacher", str(teacher), "--student", "resnet8", "--cache-teacher", str(options.views)]
    kdedge("distill", str(data), *taught, "--recipe", str(recipe), "--epochs", str(options.epochs), "--out", str(run))
    model = run / "model.int8.onnx"
    if not model.is_file():
        subprocess.run([sys.executable, "-m", "kdedge", "export", str(run), "--quantize"], check=True)
    return model


def write_recording(digits: Path, target: Path, speaker: str, rng: np.random.Generator) -> tuple[list[Word], float]:
    """Write the words of a speaker in a noisy room; return them, and the time at which noise alone begins."""
    files = [digits / label / f"{speaker}_{take:02}.wav" for label in (*KNOWN, *UNKNOWN) for take in range(SPOKEN)]
    parts, words, now = [np.zeros(RATE_HZ)], [], 1.0
    for number in rng.permutation(len(files)):
        spoken, rate_hz = soundfile.read(files[number])
        assert rate_hz == RATE_HZ
        spoken = 0.1 * spoken / spoken.std()
        pause = np.zeros(round(rng.uniform(1, 2) * RATE_HZ))
        words.append(Word(files[number].parent.name, now, now + len(spoken) / RATE_HZ))
        now += (len(spoken) + len(pause)) / RATE_HZ
        parts += [spoken, pause]
    speech = np.concatenate([*parts, np.zeros(QUIET_S * RATE_HZ)])
    noise = np.concatenate([room(60, rng) for _ in range(math.ceil(len(speech) / RATE_HZ / 60))])[: len(speech)]
    soundfile.write(target, np.clip(speech + 0.1 * 10 ** (NOISE_DB / 20) * noise, -1, 1), RATE_HZ)
    return words, now


def events(model: Path, recording: Path, *more: str) -> list[tuple[float, str]]:
    """Return the end and the label of every event of a recording."""
    command = [sys.executable, "-m", "kdedge", "run", str(model), "--source", str(recording), "--jsonl", "-"]
    command += ["--hop", "0.1s", "--smooth", "0.3s", "--refractory", "1s", *more]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    return [(line["end"], line["label"]) for line in map(json.loads, lines) if line.get("event")]


def measure(model: Path, recording: Path, words: list[Word], spoken_s: float) -> dict[str, Any]:
    """Return the shares of words, the false alarms per hour of noise, and the median delay in seconds."""
    found, without = events(model, recording), events(model, recording, "--no-unknown")
    right, shares = shares_of(words, found)
    delays = [
        min(end for end, label in heard_during(word, found) if label == word.label) - word.end_s for word in right
    ]
    alarms = [end for end, _ in found if end > spoken_s + WINDOW_S]
    return {
        **shares,
        **{f"{key}_without": share for key, share in shares_of(words, without)[1].items()},
        "alarms": 3600 * len(alarms) / (QUIET_S - WINDOW_S),
        "delay": statistics.median(delays) if delays else math.nan,
    }


def shares_of(words: list[Word], found: list[tuple[float, str]]) -> tuple[list[Word], dict[str, float]]:
    """Return the words that were found, and the shares of found, mistaken and accepted unknown words in percent."""
    heard = {word: [label for _, label in heard_during(word, found)] for word in words}
    known = [word for word in words if word.label in KNOWN]
    unknown = [word for word in words if word.label not in KNOWN]
    right = [word for word in known if word.label in heard[word]]
    wrong = [word for word in known if set(heard[word]) - {word.label}]
    return right, {
        "found": 100 * len(right) / len(known),
        "wrong": 100 * len(wrong) / len(known),
        "accepted": 100 * sum(bool(heard[word]) for word in unknown) / len(unknown),
    }


def heard_during(word: Word, found: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the events that end within a word or at most one window after it."""
    return [(end, label) for end, label in found if word.start_s < end <= word.end_s + WINDOW_S]


def draw(model: Path, digits: Path, speaker: str, target: Path) -> None:
    """Draw the answers to a known and an unknown word of a speaker, as `kdedge run` does."""
    folders = []
    for label in (KNOWN[3], UNKNOWN[0]):
        drawn = target.with_name(f"answer-{label}")
        command = [sys.executable, "-m", "kdedge", "run", str(model), "-o", str(drawn)]
        subprocess.run([*command, "--source", str(digits / label / f"{speaker}_07.wav")], check=True)
        folders.append(drawn)
    write_sheet(folders, target)


def table(results: list[dict[str, Any]]) -> str:
    """Return the figures of each speaker and their means as a Markdown table."""
    lines = ["| left-out speaker | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    mean = {"speaker": "mean"} | {key: statistics.mean(row[key] for row in results) for key in COLUMNS}
    for row in [*results, mean]:
        cells = [f"{row[key]:.{2 if key == 'delay' else 1}f}" for key in COLUMNS]
        lines.append(f"| {row['speaker']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
