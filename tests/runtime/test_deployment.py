"""The systemd unit and the container file: what can be checked without a board."""

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
    """The container file's instructions with their arguments, continued lines joined."""
    text = "\n".join(
        line for line in CONTAINERFILE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
    )
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def locked() -> dict[str, str]:
    """The versions of the container's packages."""
    text = (CONTAINERFILE.parent / "requirements.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==([\d.]+) \\$", text, re.MULTILINE))


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    copy = tmp_path / UNIT.name
    # The environment that the unit starts from is not installed here.
    copy.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/kdedge/venv/bin/kdedge-run", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_little_exposed() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", UNIT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:]


def test_the_unit_runs_a_command_that_parses() -> None:
    parser = build_parser()
    (command,) = unit_lines("ExecStart")
    environment = dict(pair.split("=", 1) for line in unit_lines("Environment") for pair in line.split())
    words = [re.sub(r"\$\{(\w+)\}", lambda match: environment[match[1]], word) for word in command.split()]
    assert words[0].endswith("/kdedge-run")
    arguments = parser.parse_args(words[1:])
    assert (arguments.source, arguments.view, arguments.device) == ("csi:0", "127.0.0.1:8080", "auto")


def test_the_unit_notifies_and_is_watched() -> None:
    assert unit_lines("Type") == ["notify"]
    assert unit_lines("DynamicUser") == ["yes"]
    assert int(unit_lines("WatchdogSec")[0]) > 0 and unit_lines("Restart") == ["on-failure"]
    assert unit_lines("User") == [], "DynamicUser makes one"


def test_the_unit_waits_for_a_camera_for_ever_and_for_a_wrong_command_never() -> None:
    assert unit_lines("StartLimitIntervalSec") == ["0"]
    hopeless = {int(code) for code in unit_lines("RestartPreventExitStatus")[0].split()}
    assert hopeless == {error.exit_code for error in (UsageError, MissingDependency, ValidationFailed)}
    assert SourceError.exit_code not in hopeless


def test_the_unit_reaches_nothing_and_ends_cleanly() -> None:
    assert unit_lines("IPAddressDeny") == ["any"]
    assert unit_lines("IPAddressAllow") == ["localhost"]
    assert unit_lines("WatchdogSignal") == ["SIGTERM"], "SIGABRT would cut a film off"
    assert "ORT_DISABLE_TELEMETRY=1" in unit_lines("Environment")
    assert unit_lines("#LoadCredential") == ["kdedge-token:/etc/kdedge/token"]


def test_the_lock_names_files_by_hash_within_the_bounds_of_the_runtime() -> None:
    text = (CONTAINERFILE.parent / "requirements.lock").read_text(encoding="utf-8")
    entries = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\d.]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in entries)
    versions = locked()
    compiled = ("numpy", "onnxruntime", "opencv-python-headless", "pillow")
    for name in compiled:
        block = text.partition(f"{name}==")[2].partition("==")[0]
        assert block.count("--hash=") == 2, "64-bit ARM and x86-64"
    pyproject = DEVICES.parent / "runtime" / "pyproject.toml"
    if pyproject.exists():
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        wanted = [*project["dependencies"], *project["optional-dependencies"]["camera"]]
        assert {Requirement(each).name for each in wanted} == set(compiled)
        assert all(Requirement(each).specifier.contains(versions[Requirement(each).name]) for each in wanted)
    assert any("--require-hashes" in rest for _, rest in instructions())


@pytest.mark.parametrize("package", [".", "export", "runtime"])
def test_lower_bounds_are_above_known_vulnerabilities(package: str) -> None:
    """Pillow 10.3 closes CVE-2024-28219, OpenCV 4.8.1.78 brings a libwebp without CVE-2023-4863."""
    file = DEVICES.parent / package / "pyproject.toml"
    if not file.exists():
        pytest.skip("the packages are not in a checkout")
    text = file.read_text(encoding="utf-8")
    for name, least in (("pillow", (10, 3)), ("opencv-python-headless", (4, 8, 1, 78))):
        for bound in re.findall(rf'"{name}>=([\d.]+)', text):
            assert tuple(map(int, bound.split("."))) >= least


def test_the_unit_is_well_formed() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes="#", delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    assert parser.sections() == ["Unit", "Service", "Install"]


def test_the_container_is_slim_pinned_and_without_root() -> None:
    steps = instructions()
    assert steps[:2] == [("ARG", steps[0][1]), ("FROM", "${BASE}")]
    assert re.fullmatch(r"BASE=docker\.io/library/python:3\.\d+-slim-\w+", steps[0][1]), "never :latest"
    words = [word for word, _ in steps]
    assert words.count("ENTRYPOINT") == words.count("CMD") == words.count("HEALTHCHECK") == 1
    users = [rest for word, rest in steps if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]), "a number, so that Kubernetes can see that it is not root"
    assert words.index("USER") > max(index for index, word in enumerate(words) if word in ("RUN", "COPY"))


def test_the_container_leaves_no_cache_and_copies_only_the_lock_and_the_wheel() -> None:
    for word, rest in instructions():
        if word == "RUN":
            assert "pip install" not in rest or "--no-cache-dir" in rest
            assert "sudo" not in rest and "curl" not in rest
        assert word != "ADD"
    copied = [rest for word, rest in instructions() if word == "COPY"]
    assert copied == ["requirements.lock /tmp/wheels/", "kdedge_runtime-*.whl /tmp/wheels/"]


def test_the_container_runs_a_command_that_parses() -> None:
    lists = {word: re.findall(r'"([^"]*)"', rest) for word, rest in instructions() if word in ("ENTRYPOINT", "CMD")}
    command = lists["ENTRYPOINT"] + lists["CMD"]
    assert command[0] == "kdedge-run"
    arguments = build_parser().parse_args(command[1:])
    assert (arguments.model, arguments.source, arguments.view) == ("/model.onnx", "0", "0.0.0.0:8080")


def test_the_container_installs_what_the_profiles_allow() -> None:
    from kdedge_runtime.devices import load_profile, profile_names

    pinned = locked()["onnxruntime"]
    for name in profile_names():
        assert load_profile(name).onnxruntime.objection(pinned) is None


def test_help_names_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    for word in ("--self-test", "--bench", "--soak", "--doctor", "--devices", "4 a check failed"):
        assert word in told


def test_the_test_on_emulated_arm_says_why_it_cannot_run(tmp_path: Path) -> None:
    # A machine with a shell and little else: neither debootstrap nor qemu.
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
