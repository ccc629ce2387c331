"""Board state, read from file trees that mimic real kernels."""

from pathlib import Path

import pytest

from kdedge_runtime.diagnostics.system_state import Throttling, read_system_state


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def raspberry_pi(root: Path, flags: str = "0", *, temperature: str = "48312", clock: str = "2400000") -> Path:
    return write(
        root,
        {
            "class/thermal/thermal_zone0/type": "cpu-thermal",
            "class/thermal/thermal_zone0/temp": temperature,
            "class/thermal/thermal_zone1/type": "gpu-thermal",
            "class/thermal/thermal_zone1/temp": "91000",
            "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": clock,
            "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2400000",
            "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "2400000",
            "devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq": "2400000",
            "devices/platform/soc/soc:firmware/get_throttled": flags,
        },
    )


def laptop(root: Path, *, events: int, cooled: int = 0) -> Path:
    return write(
        root,
        {
            "class/thermal/thermal_zone0/type": "acpitz",
            "class/thermal/thermal_zone0/temp": "27800",
            "class/thermal/thermal_zone1/type": "x86_pkg_temp",
            "class/thermal/thermal_zone1/temp": "61000",
            "class/hwmon/hwmon3/name": "coretemp",
            "class/hwmon/hwmon3/temp1_input": "63000",
            "class/thermal/cooling_device0/type": "intel_powerclamp",
            "class/thermal/cooling_device0/cur_state": "5",
            "class/thermal/cooling_device1/type": "cpufreq-cpu0",
            "class/thermal/cooling_device1/cur_state": str(cooled),
            "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": str(events),
            "devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "1",
        },
    )


def test_raspberry_pi_without_throttling(tmp_path: Path) -> None:
    state = read_system_state(raspberry_pi(tmp_path))
    assert state.temperature_c == pytest.approx(48.312), "of the CPU, not of the GPU"
    assert (state.clock_mhz, state.max_clock_mhz) == (2400, 2400)
    assert (state.throttled, state.throttled_since_boot, state.throttle_events) == ((), (), None)
    assert str(state) == "48 °C, 2400 of 2400 MHz"


def test_raspberry_pi_with_under_voltage_and_heat(tmp_path: Path) -> None:
    # Under-voltage, capped, throttled and at the soft limit now; all except the soft limit also since boot.
    state = read_system_state(raspberry_pi(tmp_path, "7000f", temperature="84000", clock="1500000"))
    assert state.throttled == ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
    assert state.throttled_since_boot == ("under-voltage", "frequency capped", "throttled")
    assert str(state).startswith("84 °C, 1500 of 2400 MHz, now: under-voltage")


def test_kernel_voltage_alarm_is_reported(tmp_path: Path) -> None:
    root = write(
        raspberry_pi(tmp_path), {"class/hwmon/hwmon1/name": "rpi_volt", "class/hwmon/hwmon1/in0_lcrit_alarm": "1"}
    )
    assert read_system_state(root).throttled == ("under-voltage",)


def test_laptop_reports_hottest_sensor_and_throttle_count(tmp_path: Path) -> None:
    state = read_system_state(laptop(tmp_path, events=4))
    assert (state.temperature_c, state.throttle_events, state.throttled) == (63, 5, ())


def test_thermal_frequency_cap_counts_as_throttling(tmp_path: Path) -> None:
    assert read_system_state(laptop(tmp_path, events=0, cooled=2)).throttled == ("frequency capped by heat",)


def test_missing_sensors_give_none(tmp_path: Path) -> None:
    state = read_system_state(tmp_path)
    assert (state.temperature_c, state.clock_mhz, state.throttled, state.throttle_events) == (None, None, (), None)
    assert str(state) == "temperature and clock not available"


def test_unreadable_sensors_are_ignored(tmp_path: Path) -> None:
    root = write(raspberry_pi(tmp_path, "??"), {"class/thermal/thermal_zone0/temp": "", "class/hwmon/hwmon0/x": ""})
    (root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq").unlink()
    (root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq").mkdir()
    state = read_system_state(root)
    assert (state.temperature_c, state.clock_mhz, state.throttled) == (None, 2400, ())


def test_this_machine_has_a_state() -> None:
    assert str(read_system_state())


def test_throttling_includes_new_and_ongoing_reasons(tmp_path: Path) -> None:
    # Earlier throttling (bit 18) has ended.
    throttling = Throttling(read_system_state(raspberry_pi(tmp_path, "40000")))
    throttling.add(read_system_state(raspberry_pi(tmp_path, "40000")))
    assert throttling.reasons == ()
    throttling.add(read_system_state(raspberry_pi(tmp_path, "50000")))
    assert throttling.reasons == ("under-voltage",), "event between two readings"
    throttling.add(read_system_state(raspberry_pi(tmp_path, "70002")))
    throttling.add(read_system_state(raspberry_pi(tmp_path, "70000")))
    assert throttling.reasons == ("under-voltage", "frequency capped")


def test_initial_throttling_is_included(tmp_path: Path) -> None:
    assert Throttling(read_system_state(raspberry_pi(tmp_path, "4"))).reasons == ("throttled",)


def test_rising_event_count_is_throttling(tmp_path: Path) -> None:
    throttling = Throttling(read_system_state(laptop(tmp_path, events=4)))
    throttling.add(read_system_state(laptop(tmp_path, events=4)))
    assert throttling.reasons == ()
    throttling.add(read_system_state(laptop(tmp_path, events=6)))
    assert throttling.reasons == ("throttled",)
