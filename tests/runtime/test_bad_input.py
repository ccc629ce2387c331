"""Invalid input gives a prediction or a one-line error with an exit code, and existing files are kept."""

import io
import json
import os
import random
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from video_frames import frames_of

from kdedge_runtime.cli.main import main
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.metadata import Metadata, Outputs
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.model import Model
from kdedge_runtime.util.images import read_image

COMMAND = [sys.executable, "-c", "import sys; from kdedge_runtime.cli.main import main; sys.exit(main())"]
FUZZ_S = 2.0
"""Time per fuzzed reader in seconds."""
JUNK = [
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "NaN",
    '""',
    "[]",
    "{}",
    "[null]",
    '{"a":1}',
    "9" * 400,
    "[" * 2000,
    '"\ud800"',
]


def _png_of(width: int, height: int) -> bytes:
    """Return a PNG header of this size with almost no pixel data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def _run_to_error(
    model: Path, source: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, list[str]]:
    code = main([str(model), "--source", str(source), *options])
    return code, capsys.readouterr().err.splitlines()


def test_oversized_image_is_rejected_before_decoding(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "huge.png").write_bytes(_png_of(60_000, 60_000))
    code, printed = _run_to_error(model_path, tmp_path / "huge.png", capsys)
    assert code == 5
    assert "huge.png is too large" in printed[-1] and "Scale it down first" in printed[-1]


def test_very_wide_image_is_classified(model_path: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20_000, 3), "red").save(tmp_path / "strip.png")
    out = tmp_path / "out"
    options = ["--jsonl", str(tmp_path / "a"), "-o", str(out)]
    assert main([str(model_path), "--source", str(tmp_path / "strip.png"), *options]) == 0
    assert json.loads((tmp_path / "a").read_text().splitlines()[0])["label"] == "red"
    with Image.open(out / "strip.jpg") as drawn:
        assert drawn.size[0] >= 20_000


def test_animation_cmyk_and_palette_images_are_classified(model_path: Path, tmp_path: Path) -> None:
    colors = [Image.new("RGB", (64, 64), color) for color in ("lime", "red", "blue")]
    folder = tmp_path / "in"
    folder.mkdir()
    colors[0].save(folder / "1.gif", save_all=True, append_images=colors[1:])
    Image.new("CMYK", (64, 64), (0, 255, 255, 0)).save(folder / "2.jpg")
    colors[2].quantize(4).save(folder / "3.png")
    assert main([str(model_path), "--source", str(folder), "--jsonl", str(tmp_path / "a")]) == 0
    *lines, _ = map(json.loads, (tmp_path / "a").read_text().splitlines())
    assert [line["label"] for line in lines] == ["green", "red", "blue"], "first frame of an animation"


def test_folder_without_images_is_a_one_line_error(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    code, printed = _run_to_error(model_path, tmp_path, capsys)
    assert code == 5
    assert printed[-1].startswith("error: The folder ") and "contains no images" in printed[-1]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_video_is_read_to_its_last_complete_frame(
    share: float, model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2 = pytest.importorskip("cv2", reason="videos need OpenCV")
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 12.0, (128, 96))
    for seed in range(24):
        writer.write(np.random.default_rng(seed).integers(0, 256, (96, 128, 3), dtype=np.uint8))
    writer.release()
    whole = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: int(len(whole) * share)])
    code, printed = _run_to_error(
        model_path, tmp_path / "a.avi", capsys, "--jsonl", str(tmp_path / "a"), "-o", str(tmp_path / "o.mp4")
    )
    *lines, last = map(json.loads, (tmp_path / "a").read_text().splitlines())
    figures = last["summary"]
    assert code == 0
    assert figures["frames"] == len(lines) < 24
    assert figures["frames"] + figures["unreadable"] == figures["expected"] == 24
    assert any("declares 24 frames" in line for line in printed)
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == len(lines)


@pytest.mark.skipif(sys.platform != "linux", reason="arbitrary file name bytes need Linux")
def test_non_utf8_names_are_escaped_and_not_passed_to_native_libraries(
    model_path: Path, photos: Path, video: Path, tmp_path: Path
) -> None:
    odd = os.fsdecode(b"caf\xe9")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / f"{odd}.png").write_bytes((photos / "1-red.png").read_bytes())
    options = ["--jsonl", str(tmp_path / "a"), "-o", str(tmp_path / "out")]
    assert main([str(model_path), "--source", str(folder), *options]) == 0
    assert json.loads((tmp_path / "a").read_text().splitlines()[0])["name"] == "caf\\xe9.png"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["caf\\xe9.jpg"]
    for suffix, content in ((".mp4", video), (".onnx", model_path)):
        (tmp_path / f"{odd}{suffix}").write_bytes(content.read_bytes())
    for model, source, output in (
        (tmp_path / f"{odd}.onnx", photos, "seen"),
        (model_path, tmp_path / f"{odd}.mp4", "seen"),
    ):
        # In a subprocess, because OpenCV crashes on such names.
        command = [*COMMAND, model, "--source", source, "-o", tmp_path / output]
        done = subprocess.run([os.fsencode(part) for part in command], capture_output=True, text=True)
        assert done.returncode == 2
        assert "caf\\xe9" in done.stderr and done.stderr.splitlines()[-1].endswith("requires. Rename the file.")
    assert main([str(model_path), "--source", str(video), "-o", str(tmp_path / f"{odd}-seen.mp4")]) == 0
    assert (tmp_path / f"{odd}-seen.mp4").stat().st_size > 0


def test_maximum_length_file_name_gets_an_overlay(model_path: Path, photos: Path, tmp_path: Path) -> None:
    longest = "x" * 251
    (photos / "1-red.png").rename(photos / f"{longest}.png")
    assert main([str(model_path), "--source", str(photos / f"{longest}.png"), "-o", str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{longest}.jpg"]


def test_colon_in_video_name_is_not_a_url(
    model_path: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("12:30.mp4").write_bytes(video.read_bytes())
    assert main([str(model_path), "--source", "12:30.mp4", "-o", "13:30.mp4"]) == 0
    assert Path("13:30.mp4").stat().st_size > 0


def test_wall_clock_changes_affect_only_timestamps(
    model_path: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = iter([2e9, 1e9, 1.5e9, 0.0, *[1e9] * 100])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    assert main([str(model_path), "--source", str(photos), "--jsonl", str(tmp_path / "a")]) == 0
    *lines, last = map(json.loads, (tmp_path / "a").read_text().splitlines())
    assert all(0 <= line["age_ms"] < 60_000 for line in lines)
    assert 0 < last["summary"]["elapsed_s"] < 60


def test_runtime_measures_durations_with_monotonic_clocks() -> None:
    import kdedge_runtime

    root = Path(kdedge_runtime.__file__).parent
    measured = [path.name for path in root.rglob("*.py") if "time.time()" in path.read_text(encoding="utf-8")]
    assert measured == []


LIMITED = """
import resource, sys
from kdedge_runtime.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="resource limits need POSIX")
@pytest.mark.parametrize("limit", [2_000, 400_000])
def test_video_keeps_written_frames_when_writing_fails(limit: int, model_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="videos need OpenCV")
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", LIMITED.format(limit=limit), model_path, "--source", "synthetic:"]
    command += ["--max-frames", "400", "-o", out / "o.mp4"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr.splitlines()[-1]
    films = list(out.iterdir())
    assert [film.name for film in films] == ["o.mp4"] * (limit > 2_000)
    for film in films:
        assert f"is playable: {len(frames_of(film))} frames" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="resource limits need POSIX")
def test_video_is_kept_when_jsonl_output_fails(model_path: Path, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="videos need OpenCV")
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    command = [*COMMAND, model_path, "--source", "synthetic:", "-o", tmp_path / "o.mp4", "--jsonl", "-"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([str(part) for part in command], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "error: Standard output cannot be written: No space left on device."
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "o.mp4"])
    if (tmp_path / "o.mp4").exists():
        assert cv2.VideoCapture(str(tmp_path / "o.mp4")).read()[0]


def test_full_disk_for_overlay_images_is_reported(
    model_path: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdedge_runtime.sinks.image_folder.atomic_write", full)
    code, printed = _run_to_error(model_path, photos, capsys, "-o", str(tmp_path / "out"))
    assert code == 1
    assert "1-red.jpg cannot be written: No space left on device" in printed[-1]


def _damaged(content: bytes, chance: random.Random) -> bytes:
    """Return content with bytes changed, removed, duplicated or truncated."""
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        if not damaged:
            break
        place = chance.randrange(len(damaged))
        span = chance.randint(1, 64)
        damage = chance.randrange(4)
        if damage == 0:
            damaged[place] = chance.randrange(256)
        elif damage == 1:
            del damaged[place : place + span]
        elif damage == 2:
            damaged[place:place] = damaged[place : place + span]
        else:
            del damaged[place:]
    return bytes(damaged)


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
def test_damaged_images_are_decoded_or_rejected(tmp_path: Path) -> None:
    generator, chance = np.random.default_rng(0), random.Random(0)
    picture = Image.fromarray(generator.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    seeds = []
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        buffer = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save(buffer, form, **({"exif": exif} if form in ("PNG", "JPEG", "WEBP", "TIFF") else {}))
        seeds.append(buffer.getvalue())
    spec = ImageInput(16, 16, (0.0,) * 3, (1.0,) * 3)
    path, ends, read = tmp_path / "a.png", time.monotonic() + FUZZ_S, 0
    while time.monotonic() < ends:
        path.write_bytes(_damaged(chance.choice(seeds), chance))
        try:
            pixels = read_image(path)
        except KdedgeError as error:
            assert str(path) in str(error)
        else:
            read += 1
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
            assert spec.preprocess(pixels).shape == (16, 16, 3)
    assert read, "some damage leaves a picture"


def test_damaged_metadata_is_parsed_or_rejected() -> None:
    chance = random.Random(0)
    spec = ImageInput(64, 64, (0.5,) * 3, (0.5,) * 3)
    sound = Metadata(("a", "b"), spec, Outputs("gradcam", "layer", "gap", 7, 7)).to_props()
    ends, read = time.monotonic() + FUZZ_S, 0
    while time.monotonic() < ends:
        props = dict(sound)
        key = chance.choice(list(props))
        damage = chance.randrange(4)
        if damage == 0:
            del props[key]
        elif damage == 1:
            props[key] = chance.choice(JUNK)
        elif damage == 2:
            props[key] = _damaged(props[key].encode(), chance).decode(errors="replace")
        else:
            value = json.loads(props[key])
            if isinstance(value, dict) and value:
                value[chance.choice(list(value))] = json.loads(chance.choice(JUNK[:5] + JUNK[6:11]))
                props[key] = json.dumps(value)
        try:
            metadata = Metadata.from_props(props)
        except KdedgeError:
            continue
        read += 1
        assert metadata.to_props()
        metadata.input.preprocess(np.zeros((5, 7, 3), np.uint8))
    assert read, "some damage leaves sound metadata"


def test_damaged_model_files_are_loaded_or_rejected(model_path: Path, tmp_path: Path) -> None:
    # In a subprocess, because a crash of onnxruntime's parser would end the test run.
    program = f"""
import random, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import numpy as np
from test_bad_input import _damaged, FUZZ_S
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.model import Model
chance, content, path = random.Random(0), Path({str(model_path)!r}).read_bytes(), Path("damaged.onnx")
ends, tried = time.monotonic() + FUZZ_S, 0
while time.monotonic() < ends:
    path.write_bytes(_damaged(content, chance))
    tried += 1
    try:
        Model.load(path, threads=1)
    except KdedgeError:
        pass
print(tried)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 10
    assert Model.load(model_path).has_map
