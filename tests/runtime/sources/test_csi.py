"""Ribbon-cable cameras, with fakes of `rpicam-vid` and picamera2."""

import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from kdedge_runtime.errors import MissingDependency, SourceError
from kdedge_runtime.sources import csi, open_source
from kdedge_runtime.sources.live_source import Backoff

needs_posix = pytest.mark.skipif(os.name != "posix", reason="fake programs are POSIX scripts")

# Writes gray frames whose shade encodes the start and frame number, then exits within a frame.
_PROGRAM = """#!{python}
import os, sys
from pathlib import Path
options = dict(zip(sys.argv[1:], sys.argv[2:]))
assert options["--codec"] == "yuv420" and options["-o"] == "-" and options["-t"] == "0", sys.argv
width, height = int(options["--width"]), int(options["--height"])
starts = Path(__file__).with_name("starts")
number = int(starts.read_text()) if starts.exists() else 0
starts.write_text(str(number + 1))
if number in {failing}:
    sys.exit("ERROR: *** no cameras available ***")
for index in range({frames}):
    luma = bytes([50 * number + 10 * index + 20]) * (width * height)
    sys.stdout.buffer.write(luma + bytes([128]) * (width * height // 2))
sys.stdout.buffer.write(bytes(1000))
"""


@pytest.fixture
def no_picamera2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)


def _install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "rpicam-vid", **settings: object) -> None:
    program = folder / name
    values = {"frames": 3, "failing": set()} | settings
    program.write_text(_PROGRAM.format(python=sys.executable, **values))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@needs_posix
@pytest.mark.usefixtures("no_picamera2")
def test_terminated_program_is_restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, monkeypatch, failing={1, 2})
    source = open_source("csi:0", "all")
    source._backoff = Backoff(first_s=0.01, longest_s=0.02)
    with source:
        shades = [int(frame.sample.mean()) for frame in islice(source, 6)]
    # Starts 0 and 3 gave three frames each; incomplete frames are discarded.
    assert shades == [20, 30, 40, 170, 180, 190]
    assert source.reconnects == 1


@needs_posix
@pytest.mark.usefixtures("no_picamera2")
def test_former_program_name_is_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, monkeypatch, "libcamera-vid")
    with open_source("csi:0", "all") as source:
        frame = next(iter(source))
    assert frame.sample.shape == (csi.HEIGHT, csi.WIDTH, 3)
    assert frame.name == "csi-000000"


@needs_posix
@pytest.mark.usefixtures("no_picamera2")
def test_missing_camera_error_contains_program_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, monkeypatch, failing={0})
    with pytest.raises(SourceError, match=r"csi:0 did not open.*no cameras available.*--list-cameras"):
        open_source("csi:0").__enter__()


@pytest.mark.usefixtures("no_picamera2")
def test_missing_programs_error_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="apt install rpicam-apps"):
        open_source("csi:0")


@needs_posix
def test_hanging_program_is_terminated_with_the_run(tmp_path: Path, model_path: Path) -> None:
    program = tmp_path / "rpicam-vid"
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "Path(__file__).with_name('pid').write_text(str(os.getpid()))\n"
        f"sys.stdout.buffer.write(bytes({csi.frame_bytes(csi.WIDTH, csi.HEIGHT)}))\n"
        "sys.stdout.flush()\n"
        "time.sleep(300)\n"
    )
    program.chmod(0o755)
    code = "import sys; sys.modules['picamera2'] = None; from kdedge_runtime.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, str(model_path), "--source", "csi:0", "--jsonl", "-"]
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("width", [480, 640, 1024])
def test_yuv_conversion_handles_row_padding(width: int) -> None:
    # Rows of 480 px are padded to 512 and 256 bytes (forums.raspberrypi.com, p=1978205).
    height = 4
    assert csi.frame_bytes(480, 640) == 491_520
    luma_stride = {480: 512, 640: 640, 1024: 1024}[width]
    luma = np.full((height, luma_stride), 7, np.uint8)
    blue, red = np.full((2, height // 2, luma_stride // 2), 9, np.uint8)
    luma[:, :width], blue[:, : width // 2], red[:, : width // 2] = 120, 90, 200
    rgb = csi.rgb_of_yuv420(luma.tobytes() + blue.tobytes() + red.tobytes(), width, height)
    # ITU-T T.871 (JFIF), section 7.
    expected = (120 + 1.402 * 72, 120 - 0.344136 * -38 - 0.714136 * 72, 120 + 1.772 * -38)
    assert rgb.shape == (height, width, 3)
    np.testing.assert_allclose(rgb.reshape(-1, 3), np.broadcast_to(expected, (height * width, 3)), atol=1.1)


class _Request:
    """Fake of picamera2's `CompletedRequest`."""

    def __init__(self, age_ns: int) -> None:
        self._age_ns = age_ns

    def get_metadata(self) -> dict[str, int]:
        return {"SensorTimestamp": time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self._age_ns}

    def make_array(self, name: str) -> np.ndarray:
        assert name == "main"
        return np.full((csi.HEIGHT, csi.WIDTH, 3), (1, 2, 3), np.uint8)

    def release(self) -> None:
        _Camera.requests_held -= 1


class _Camera:
    """Fake of picamera2's `Picamera2` that returns two frames and then hangs."""

    requests_held = 0
    are_open = 0

    def __init__(self, number: int) -> None:
        if number > 0:
            raise IndexError("list index out of range")
        self.left = 2
        _Camera.are_open += 1

    def create_video_configuration(self, main: dict, controls: dict) -> dict:
        assert main["format"] == "BGR888", "picamera2's name of RGB arrays"
        return {"main": main, "controls": controls}

    def configure(self, configuration: dict) -> None:
        assert configuration["main"]["size"] == (csi.WIDTH, csi.HEIGHT)

    def start(self) -> None:
        pass

    def capture_request(self, wait: bool) -> "_Camera":
        assert not wait
        return self

    def get_result(self, timeout: float) -> _Request:
        if not self.left:
            raise TimeoutError
        self.left -= 1
        _Camera.requests_held += 1
        return _Request(age_ns=40_000_000)

    def close(self) -> None:
        _Camera.are_open -= 1


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="picamera2 timestamps need Linux")
def test_picamera2_is_preferred_and_provides_sensor_timestamps(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("picamera2")
    module.Picamera2 = _Camera
    monkeypatch.setitem(sys.modules, "picamera2", module)
    source = open_source("csi:0", "all")
    source._backoff = Backoff(first_s=0.01)
    with source:
        frames = []
        for frame in islice(source, 3):
            frames.append(frame)
            assert 0.03 < time.monotonic() - frame.captured_at < 1.0
    assert frames[0].sample[0, 0].tolist() == [1, 2, 3]
    assert source.reconnects == 1
    assert (_Camera.requests_held, _Camera.are_open) == (0, 0)
    with pytest.raises(SourceError, match="csi:1 did not open"):
        open_source("csi:1").__enter__()
