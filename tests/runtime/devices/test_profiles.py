"""Device profiles: loading, installed package and error messages."""

import shutil
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import kdedge_runtime
from kdedge_runtime.devices import load_profile, profile_names
from kdedge_runtime.devices.profile import parse_profile
from kdedge_runtime.errors import KdedgeError, UsageError

CHECKOUT = Path(__file__).parents[3]
GENERIC = (CHECKOUT / "devices" / "generic.toml").read_text(encoding="utf-8")


def in_installed_copy(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code against a copy of the package that contains its profiles, like the wheel."""
    package = site / "kdedge_runtime"
    shutil.copytree(Path(kdedge_runtime.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    # An installed package already contains them.
    shutil.copytree(CHECKOUT / "devices", package / "devices" / "profiles", dirs_exist_ok=True)
    program = f"import sys; sys.path.insert(0, {str(site)!r}); from kdedge_runtime.devices import *; {code}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def as_toml(value: Any) -> Any:
    """Return the TOML representation of a value."""
    if isinstance(value, dict):
        return {key: as_toml(item) for key, item in value.items() if item is not None}
    return list(value) if isinstance(value, tuple) else value


def test_profiles_are_the_files_in_devices() -> None:
    assert profile_names() == sorted(path.stem for path in (CHECKOUT / "devices").glob("*.toml"))
    assert "generic" in profile_names(), "the default"


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_loads_unchanged(name: str) -> None:
    written = tomllib.loads((CHECKOUT / "devices" / f"{name}.toml").read_text(encoding="utf-8"))
    read = as_toml(asdict(load_profile(name)))
    assert read.pop("name") == name
    for table in ("onnxruntime", "quantization", "budgets"):
        assert written[table].items() <= read[table].items()
    assert {key: value for key, value in written.items() if not isinstance(value, dict)}.items() <= read.items()


@pytest.mark.parametrize("name", profile_names())
def test_every_value_has_a_comment(name: str) -> None:
    lines = (CHECKOUT / "devices" / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    section_has_reason = False
    for number, line in enumerate(lines):
        if line.startswith("["):
            section_has_reason = False
        elif line.startswith("#"):
            section_has_reason = True
        elif "=" in line and not line.startswith("description"):
            assert section_has_reason, f"{name}.toml:{number + 1}: {line}"


@pytest.mark.parametrize("name", profile_names())
def test_reduce_range_only_for_x86_without_vnni(name: str) -> None:
    profile = load_profile(name)
    is_x86_without_vnni = "avx2" in profile.instructions and "vnni" not in profile.instructions
    assert profile.quantization.reduce_range is (name == "generic" or is_x86_without_vnni)


def test_int8_is_faster_only_with_int8_instructions() -> None:
    for name in profile_names():
        profile = load_profile(name)
        if profile.quantization.int8_is_faster:
            assert {"dotprod", "vnni"} & set(profile.instructions), name


@pytest.mark.parametrize("name", profile_names())
def test_budgets_fit_the_board(name: str) -> None:
    profile = load_profile(name)
    budgets = profile.budgets
    if profile.cores is not None and profile.threads is not None:
        assert 1 <= profile.threads <= profile.cores
    if budgets.file_mb is not None and budgets.parameters is not None:
        assert 4 * budgets.parameters / 1e6 <= budgets.file_mb, "the parameters in fp32 do not fit in the file"
    if profile.ram_mb is not None and budgets.peak_memory_mb is not None and budgets.file_mb is not None:
        assert 2 * budgets.file_mb < budgets.peak_memory_mb <= profile.ram_mb / 2


@pytest.mark.parametrize(
    ("version", "objection"),
    [
        ("1.21.0", "older than 1.22"),
        ("1.9", "older than 1.22"),
        ("1.22.0", None),
        ("1.24.4", "known to be broken"),
        ("1.26.0", "known to be broken"),
        ("1.27.1", None),
        ("1.240.0", None),
        ("2.0.0rc1", None),
    ],
)
def test_unsupported_onnxruntime_versions_are_reported(version: str, objection: str | None) -> None:
    printed = load_profile("raspberry-pi-4").onnxruntime.objection(version)
    assert printed is None if objection is None else objection in (printed or "")


def test_exact_forbidden_version_does_not_exclude_its_series() -> None:
    settings = load_profile("apple-silicon").onnxruntime
    assert settings.objection("1.27.0") and settings.objection("1.27.1") is None


def test_unknown_profile_error_lists_closest_and_all() -> None:
    with pytest.raises(
        UsageError, match=r"device profile 'raspberrypi5' does not exist\. Did you mean raspberry-pi-5\?"
    ) as error:
        load_profile("raspberrypi5")
    assert ", ".join(profile_names()) in str(error.value)
    with pytest.raises(UsageError, match=rf"'zzz' does not exist\. Available profiles: {', '.join(profile_names())}"):
        load_profile("zzz")


@pytest.mark.parametrize("name", ["../pyproject", "generic.toml", ""])
def test_profile_name_is_not_a_path(name: str) -> None:
    with pytest.raises(UsageError, match=r"device profile .* does not exist"):
        load_profile(name)


def test_installed_package_contains_profiles(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.toml").write_text("")
    printed = in_installed_copy(tmp_path, "print(*profile_names()); print(load_profile('generic'))")
    assert printed.stdout.splitlines() == [" ".join(profile_names()), str(load_profile("generic"))], printed.stderr


@pytest.mark.parametrize(
    ("before", "after", "odd"),
    [
        ('description = "any', 'descripton = "any', r"descripton is unknown \(did you mean description\?\)"),
        ('description = "any x86-64 or 64-bit ARM machine"', "", "description is missing"),
        ("reduce_range = true", "", "quantization.reduce_range is missing"),
        (
            "reduce_range = true",
            "reduce_range = true\nreduce_rnage = true",
            r"quantization.reduce_rnage is unknown \(did you mean reduce_range\?\)",
        ),
        ("reduce_range = true", "reduce_range = 1", "quantization.reduce_range is 1, expected bool"),
        ('"uint8"', '"int4"', "quantization.activations is 'int4', expected one of 'uint8', 'int8'"),
        ('providers = ["cpu"]', 'providers = "cpu"', "onnxruntime.providers is 'cpu', expected a list"),
        ("[budgets]", "[budgets]\nlatency = 3", r"budgets.latency is unknown \(did you mean latency_ms\?\)"),
        ("[budgets]", "[budgets]\nlatency_ms = true", "budgets.latency_ms is True, expected float"),
        ("[budgets]", "[budgets", "Expected"),
    ],
)
def test_damaged_profile_error_names_the_key(before: str, after: str, odd: str) -> None:
    assert before in GENERIC
    with pytest.raises(KdedgeError, match=r"board\.toml is damaged: .*" + odd):
        parse_profile("board", GENERIC.replace(before, after))


def test_integers_are_accepted_as_floats() -> None:
    profile = parse_profile("board", GENERIC.replace("[budgets]", "[budgets]\nlatency_ms = 33"))
    assert profile.budgets.latency_ms == 33.0 and isinstance(profile.budgets.latency_ms, float)
