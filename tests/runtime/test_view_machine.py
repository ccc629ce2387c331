"""What a board tells of itself, from a tree of files like that of its system."""

import os
from pathlib import Path

import pytest

from kdedge_runtime.view.machine import Machine, MachineState, throttling


def _zone(system: Path, number: int, kind: str, temperature: str) -> None:
    folder = system / f"sys/class/thermal/thermal_zone{number}"
    folder.mkdir(parents=True)
    (folder / "type").write_text(kind + "\n")
    (folder / "temp").write_text(temperature + "\n")


def _command(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = folder / "vcgencmd"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_machine_that_tells_nothing_has_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert Machine(tmp_path).state() == MachineState({}, None, None, None)


def test_zones_are_read_by_name_and_dead_sensors_left_out(tmp_path: Path) -> None:
    _zone(tmp_path, 0, "cpu-thermal", "48312")
    _zone(tmp_path, 1, "cpu-thermal", "50000")
    _zone(tmp_path, 2, "nothing", "0")
    _zone(tmp_path, 3, "broken", "n/a")
    _zone(tmp_path, 4, "absurd", "-274000")
    (tmp_path / "sys/class/thermal/thermal_zone5").mkdir()
    assert Machine(tmp_path).state().temperature_c == {"cpu-thermal": 48.312, "cpu-thermal (thermal_zone1)": 50.0}


def test_a_raspberry_pi_says_why_it_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _command(tmp_path, '[ "$1" = get_throttled ] && echo throttled=0x50005', monkeypatch)
    state = Machine(tmp_path).state()
    assert state.throttled_now == state.throttled_before == ("under-voltage", "throttled")


@pytest.mark.parametrize(
    ("bits", "now", "before"),
    [
        (0, (), ()),
        (0x1, ("under-voltage",), ()),
        (0x80008, ("soft temperature limit",), ("soft temperature limit",)),
        (0x20000, (), ("frequency capped",)),
    ],
)
def test_bits_as_raspberry_pi_documents_them(bits: int, now: tuple[str, ...], before: tuple[str, ...]) -> None:
    assert throttling(bits) == (now, before)


@pytest.mark.parametrize("script", ["exit 1", "echo nonsense", "sleep 5"])
def test_a_command_that_fails_leaves_the_kernels_word(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdedge_runtime.view.machine._COMMAND_S", 0.2)
    _command(tmp_path, script, monkeypatch)
    firmware = tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled"
    assert Machine(tmp_path).state().throttled_now is None
    firmware.parent.mkdir(parents=True)
    firmware.write_text("50000\n")
    assert Machine(tmp_path).state().throttled_before == ("under-voltage", "throttled")


def test_however_many_ask_it_is_read_every_two_seconds(tmp_path: Path) -> None:
    now = [0.0]
    _zone(tmp_path, 0, "cpu", "40000")
    machine = Machine(tmp_path, clock=lambda: now[0])
    assert machine.state().temperature_c == {"cpu": 40.0}
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text("90000")
    assert machine.state().temperature_c == {"cpu": 40.0}
    now[0] = 2.0
    assert machine.state().temperature_c == {"cpu": 90.0}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc on this system")
def test_memory_is_that_of_this_process() -> None:
    told = Machine().state().memory_mb
    status = Path("/proc/self/status").read_text()
    kilobytes = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert told == pytest.approx(kilobytes * 1.024e-3, rel=0.1)
