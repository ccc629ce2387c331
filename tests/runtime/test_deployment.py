"""Checks of the systemd unit and the container file."""

import configparser
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from kdedge_runtime.cli.main import build_parser, main
from kdedge_runtime.errors import MissingDependency, SourceError, UsageError, ValidationFailed

DEVICES = Path(__file__).parents[2] / "devices"
UNIT = DEVICES / "systemd" / "kdedge.service"
CONTAINERFILE = DEVICES / "container" / "Containerfile"


def unit_lines(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)


def instructions() -> list[tuple[str, str]]:
    """Return the container file's instructions with arguments, continuation lines joined."""
    text = "\n".join(
        line for line in CONTAINERFILE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
    )
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def locked() -> dict[str, str]:
    """Return the locked package versions."""
    text = (CONTAINERFILE.parent / "requirements.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==([\d.]+) \\$", text, re.MULTILINE))


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    copy = tmp_path / UNIT.name
    # The virtual environment of the unit is not installed here.
    copy.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/kdedge/venv/bin/kdedge-run", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_unit_has_low_exposure_score() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", UNIT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:]


def test_unit_command_parses() -> None:
    parser = build_parser()
    (command,) = unit_lines("ExecStart")
    environment = dict(pair.split("=", 1) for line in unit_lines("Environment") for pair in line.split())
    words = [re.sub(r"\$\{(\w+)\}", lambda match: environment[match[1]], word) for word in command.split()]
    assert words[0].endswith("/kdedge-run")
    arguments = parser.parse_args(words[1:])
    assert (arguments.source, arguments.view, arguments.device) == ("csi:0", "127.0.0.1:8080", "auto")


def test_unit_uses_notify_and_watchdog() -> None:
    assert unit_lines("Type") == ["notify"]
    assert unit_lines("DynamicUser") == ["yes"]
    assert int(unit_lines("WatchdogSec")[0]) > 0 and unit_lines("Restart") == ["on-failure"]
    assert unit_lines("User") == [], "DynamicUser creates it"


def test_unit_restarts_on_source_errors_only() -> None:
    assert unit_lines("StartLimitIntervalSec") == ["0"]
    hopeless = {int(code) for code in unit_lines("RestartPreventExitStatus")[0].split()}
    assert hopeless == {error.exit_code for error in (UsageError, MissingDependency, ValidationFailed)}
    assert SourceError.exit_code not in hopeless


def test_unit_has_no_network_access_and_stops_cleanly() -> None:
    assert unit_lines("IPAddressDeny") == ["any"]
    assert unit_lines("IPAddressAllow") == ["localhost"]
    assert unit_lines("WatchdogSignal") == ["SIGTERM"], "SIGABRT would truncate a video"
    assert "ORT_DISABLE_TELEMETRY=1" in unit_lines("Environment")
    assert unit_lines("#LoadCredential") == [
        "kdedge-token:/etc/kdedge/token",
        "kdedge-mqtt-password:/etc/kdedge/mqtt-password",
    ]


def test_lock_file_has_hashes_and_satisfies_runtime_bounds() -> None:
    text = (CONTAINERFILE.parent / "requirements.lock").read_text(encoding="utf-8")
    entries = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\d.]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in entries)
    versions = locked()
    compiled = ("cryptography", "numpy", "onnxruntime", "opencv-python-headless", "pillow")
    for name in compiled:
        block = text.partition(f"{name}==")[2].partition("==")[0]
        assert block.count("--hash=") == 2, "64-bit ARM and x86-64"
    pyproject = DEVICES.parent / "runtime" / "pyproject.toml"
    if pyproject.exists():
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        extras = project["optional-dependencies"]
        wanted = [*project["dependencies"], *extras["camera"], *extras["mqtt"], *extras["verify"]]
        assert {Requirement(each).name for each in wanted} == {*compiled, "paho-mqtt"}
        assert all(Requirement(each).specifier.contains(versions[Requirement(each).name]) for each in wanted)
    assert any("--require-hashes" in rest for _, rest in instructions())


@pytest.mark.parametrize("package", [".", "export", "runtime"])
def test_lower_bounds_exclude_known_vulnerabilities(package: str) -> None:
    """Pillow 10.3 fixes CVE-2024-28219; OpenCV 4.8.1.78 includes a libwebp that fixes CVE-2023-4863."""
    file = DEVICES.parent / package / "pyproject.toml"
    if not file.exists():
        pytest.skip("the packages are not in a checkout")
    text = file.read_text(encoding="utf-8")
    for name, least in (("pillow", (10, 3)), ("opencv-python-headless", (4, 8, 1, 78))):
        for bound in re.findall(rf'"{name}>=([\d.]+)', text):
            assert tuple(map(int, bound.split("."))) >= least


def test_unit_is_well_formed() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes="#", delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    assert parser.sections() == ["Unit", "Service", "Install"]


def test_container_is_slim_pinned_and_not_root() -> None:
    steps = instructions()
    assert steps[:2] == [("ARG", steps[0][1]), ("FROM", "${BASE}")]
    assert re.fullmatch(r"BASE=docker\.io/library/python:3\.\d+-slim-\w+", steps[0][1]), "never :latest"
    words = [word for word, _ in steps]
    assert words.count("ENTRYPOINT") == words.count("CMD") == words.count("HEALTHCHECK") == 1
    users = [rest for word, rest in steps if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]), "numeric, so that Kubernetes can verify that it is not root"
    assert words.index("USER") > max(index for index, word in enumerate(words) if word in ("RUN", "COPY"))


def test_container_has_no_cache_and_copies_only_lock_and_wheel() -> None:
    for word, rest in instructions():
        if word == "RUN":
            assert "pip install" not in rest or "--no-cache-dir" in rest
            assert "sudo" not in rest and "curl" not in rest
        assert word != "ADD"
    copied = [rest for word, rest in instructions() if word == "COPY"]
    assert copied == ["requirements.lock /tmp/wheels/", "kdedge_runtime-*.whl /tmp/wheels/"]


def test_container_command_parses() -> None:
    lists = {word: re.findall(r'"([^"]*)"', rest) for word, rest in instructions() if word in ("ENTRYPOINT", "CMD")}
    command = lists["ENTRYPOINT"] + lists["CMD"]
    assert command[0] == "kdedge-run"
    arguments = build_parser().parse_args(command[1:])
    assert (arguments.model, arguments.source, arguments.view) == ("/model.onnx", "0", "0.0.0.0:8080")


def test_container_version_satisfies_all_profiles() -> None:
    from kdedge_runtime.devices import load_profile, profile_names

    pinned = locked()["onnxruntime"]
    for name in profile_names():
        assert load_profile(name).onnxruntime.objection(pinned) is None


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    for word in ("self-test MODEL", "bench MODEL", "soak MODEL", "doctor", "devices [NAME]", "4 a check failed"):
        assert f"  {word}" in printed or f", {word}" in printed


def test_arm64_script_runs_existing_tests() -> None:
    script = DEVICES.parent / "tests" / "arm64" / "run.sh"
    if not script.exists():
        pytest.skip("the tests are not in a checkout")
    (listed,) = re.findall(r"^tests=\(.*?^\)$", script.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    command = ["bash", "-c", f'{listed}; printf "%s\\n" "${{tests[@]/#/tests/runtime/}}"']
    paths = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert len(paths) > 10
    assert not [path for path in paths if not (DEVICES.parent / path).is_file()]


def test_arm64_script_reports_why_it_is_skipped(tmp_path: Path) -> None:
    # PATH with a shell, but without debootstrap and qemu.
    for name in ("bash", "dirname", "id", "uname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    script = DEVICES.parent / "tests" / "arm64" / "run.sh"
    if not script.exists():
        pytest.skip("the tests are not in a checkout")
    done = subprocess.run(
        [tmp_path / "bash", script], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"skipped: needs (root|debootstrap)", done.stdout)
