"""Device profiles: found where the runtime is installed, and a wrong name or file is told."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import kdedge_runtime
from kdedge_runtime.devices import DeviceProfile, load_profile, profile_names
from kdedge_runtime.errors import UsageError

CHECKOUT = Path(__file__).parents[2]


def in_installed_copy(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code against a copy of the package that has its profiles inside, as its wheel has."""
    package = site / "kdedge_runtime"
    if not package.exists():
        shutil.copytree(Path(kdedge_runtime.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(CHECKOUT / "devices", package / "devices")
    program = f"import sys; sys.path.insert(0, {str(site)!r}); from kdedge_runtime.devices import *; {code}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_the_profiles_are_the_files_of_the_devices_folder() -> None:
    assert profile_names() == sorted(path.stem for path in (CHECKOUT / "devices").glob("*.toml"))
    assert {"generic", "raspberry-pi-4", "raspberry-pi-5"} <= set(profile_names())


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_read_as_it_is_written(name: str) -> None:
    written = tomllib.loads((CHECKOUT / "devices" / f"{name}.toml").read_text(encoding="utf-8"))
    profile = load_profile(name)
    assert profile == DeviceProfile(name, **written)
    assert profile.description and isinstance(profile.reduce_range, bool)


def test_only_x86_without_vnni_gives_up_a_bit() -> None:
    assert {name for name in profile_names() if load_profile(name).reduce_range} == {"generic", "laptop-x86-avx2"}


def test_an_unknown_name_is_told_the_nearest_and_all() -> None:
    with pytest.raises(UsageError, match=r"no device profile 'raspberrypi5'\. Did you mean raspberry-pi-5\?") as error:
        load_profile("raspberrypi5")
    assert ", ".join(profile_names()) in str(error.value)
    with pytest.raises(UsageError, match=r"'zzz'\. The profiles are: generic, "):
        load_profile("zzz")


@pytest.mark.parametrize("name", ["../pyproject", "generic.toml", ""])
def test_a_name_is_not_a_path(name: str) -> None:
    with pytest.raises(UsageError, match="no device profile"):
        load_profile(name)


def test_an_installed_runtime_has_its_profiles_inside(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.toml").write_text("")
    told = in_installed_copy(tmp_path, "print(*profile_names()); print(load_profile('generic'))")
    assert told.stdout.splitlines() == [" ".join(profile_names()), str(load_profile("generic"))], told.stderr


@pytest.mark.parametrize(
    ("text", "odd"),
    [
        ('description = "a board"\n', "reduce_range"),
        ('description = "a board"\nreduce_range = true\nreduce_rnage = true\n', "reduce_rnage"),
    ],
)
def test_a_damaged_profile_names_what_is_odd(tmp_path: Path, text: str, odd: str) -> None:
    in_installed_copy(tmp_path, "")
    (tmp_path / "kdedge_runtime" / "devices" / "board.toml").write_text(text)
    told = in_installed_copy(tmp_path, "load_profile('board')")
    message = told.stderr.splitlines()[-1]
    assert message.startswith("kdedge_runtime.errors.KdedgeError")
    assert f"board.toml is damaged: {odd}." in message
