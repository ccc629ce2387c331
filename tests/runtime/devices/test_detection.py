"""Machine detection and profile selection, from output of real machines."""

import platform
from pathlib import Path

import pytest

from kdedge_runtime.devices import load_profile, profile_names
from kdedge_runtime.devices.detection import MachineInfo, detect_machine, machine_name, profile_for
from kdedge_runtime.errors import KdedgeError

ARM_V80 = "fp asimd evtstrm crc32 cpuid"
ARM_V82 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
AVX2 = "fpu sse2 ssse3 avx f16c avx2 bmi2 erms"


def machine_root(root: Path, cpuinfo: str, *, board: str | None = None, memory_kb: int = 4_000_000) -> Path:
    (root / "proc").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(cpuinfo)
    (root / "proc/meminfo").write_text(f"MemTotal:        {memory_kb} kB\nMemFree:         100 kB\n")
    if board is not None:
        (root / "sys/firmware/devicetree/base").mkdir(parents=True)
        (root / "sys/firmware/devicetree/base/model").write_text(board + "\0")
    return root


def arm(features: str, part: str) -> str:
    core = f"BogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n"
    return "".join(f"processor\t: {number}\n{core}" for number in range(4)) + "Revision\t: d04170\n"


def x86(flags: str) -> str:
    return f"processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Some Core i7\nflags\t\t: {flags}\n\n"


@pytest.mark.parametrize(
    ("board", "features", "part", "cpu", "profile"),
    [
        ("Raspberry Pi 4 Model B Rev 1.4", ARM_V80, "0xd08", "Cortex-A72", "raspberry-pi-4"),
        ("Raspberry Pi 400 Rev 1.0", ARM_V80, "0xd08", "Cortex-A72", "raspberry-pi-4"),
        ("Raspberry Pi Compute Module 4 Rev 1.0", ARM_V80, "0xd08", "Cortex-A72", "raspberry-pi-4"),
        ("Raspberry Pi 5 Model B Rev 1.0", ARM_V82, "0xd0b", "Cortex-A76", "raspberry-pi-5"),
        ("Raspberry Pi Zero 2 W Rev 1.0", ARM_V80, "0xd03", "Cortex-A53", "raspberry-pi-zero-2w"),
        ("NVIDIA Jetson Orin Nano Developer Kit", ARM_V82, "0xd42", "Cortex-A78AE", "jetson-orin-nano"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", ARM_V80, "0xd03", "Cortex-A53", "generic"),
        ("Radxa ROCK 5B", ARM_V82, "0xd0b", "Cortex-A76", "generic"),
        (None, ARM_V80, "0xfff", None, "generic"),
    ],
)
def test_board_is_detected_from_device_tree(
    tmp_path: Path, board: str | None, features: str, part: str, cpu: str | None, profile: str
) -> None:
    machine = detect_machine(machine_root(tmp_path, arm(features, part), board=board))
    assert (machine.board, machine.cpu, machine.ram_mb) == (board, cpu, 4096)
    assert machine.instructions == (("dotprod",) if features is ARM_V82 else ())
    found = profile_for(machine)
    assert found.name == profile
    assert set(found.instructions) <= set(machine.instructions)


@pytest.mark.parametrize(
    ("flags", "instructions", "profile"),
    [
        ("fpu sse2 ssse3", (), "generic"),
        (AVX2, ("avx2",), "laptop-x86-avx2"),
        (f"{AVX2} avx512f avx512bw", ("avx2",), "laptop-x86-avx2"),
        (f"{AVX2} avx512f avx512_vnni", ("vnni", "avx2"), "laptop-x86-vnni"),
        (f"{AVX2} avx_vnni", ("vnni", "avx2"), "laptop-x86-vnni"),
    ],
)
def test_pc_is_detected_from_instruction_sets(
    tmp_path: Path, flags: str, instructions: tuple[str, ...], profile: str
) -> None:
    machine = detect_machine(machine_root(tmp_path, x86(flags)))
    assert (machine.cpu, machine.instructions) == ("Some Core i7", instructions)
    assert profile_for(machine).name == profile


@pytest.mark.parametrize(("chip", "has_i8mm"), [("Apple M1", False), ("Apple M4 Pro", True)])
def test_mac_is_detected_with_sysctl(chip: str, has_i8mm: bool) -> None:
    values = {
        "machdep.cpu.brand_string": chip,
        "hw.memsize": "17179869184",
        "hw.physicalcpu": "8",
        "hw.optional.arm.FEAT_DotProd": "1",
        "hw.optional.arm.FEAT_I8MM": str(int(has_i8mm)),
    }
    machine = detect_machine(read_sysctl=lambda name: values.get(name, ""))
    assert (machine.cpu, machine.cores, machine.ram_mb) == (chip, 8, 17180)
    assert machine.instructions == (("dotprod", "i8mm") if has_i8mm else ("dotprod",))
    assert profile_for(machine).name == "apple-silicon"


def test_intel_mac_is_not_apple_silicon() -> None:
    values = {"machdep.cpu.brand_string": "Intel(R) Core(TM) i5-8210Y CPU @ 1.60GHz"}
    machine = detect_machine(read_sysctl=lambda name: values.get(name, ""))
    assert machine.cores
    assert profile_for(machine).name == "generic"


def test_core_name_comes_from_part_number(tmp_path: Path) -> None:
    root = machine_root(tmp_path, "model name\t: ARMv8 Processor rev 1 (v8l)\n" + arm(ARM_V82, "0xd0b"))
    assert detect_machine(root).cpu == "Cortex-A76"


def test_unknown_machine_is_generic(tmp_path: Path) -> None:
    machine = detect_machine(tmp_path)
    assert (machine.board, machine.cpu, machine.ram_mb, machine.instructions) == (None, None, None, ())
    assert profile_for(machine).name == "generic"


def test_machine_name_combines_board_and_processor() -> None:
    board = MachineInfo("Raspberry Pi 5 Model B Rev 1.0", "Cortex-A76", "aarch64", 4, ("dotprod",), 4096)
    assert board.name == "Raspberry Pi 5 Model B Rev 1.0 (Cortex-A76, aarch64, 4 cores)"
    assert MachineInfo("Apple M1", "Apple M1", "arm64", 8, (), 17180).name == "Apple M1, arm64, 8 cores"
    assert MachineInfo(None, None, "x86_64", None, (), None).name == "unknown, x86_64, ? cores"
    assert machine_name() == detect_machine().name


def test_failed_detection_falls_back_to_platform_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_prediction(_name: str) -> str:
        raise KdedgeError("failed on macOS")

    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr("kdedge_runtime.devices.detection._sysctl", no_prediction)
    assert machine_name().startswith(f"unknown, {platform.machine()}, ")


def test_this_machine_is_detected() -> None:
    machine = detect_machine()
    assert machine.cores and machine.architecture == platform.machine()
    assert profile_for(machine).name in profile_names()


def test_every_listed_board_maps_to_its_profile() -> None:
    for name in profile_names():
        for board in load_profile(name).boards:
            assert profile_for(MachineInfo(f"{board} Rev 1.0", None, "aarch64", 4, ("dotprod",), 4096)).name == name
