"""Versions and devices of signed bundles: no rollback, and no bundle for another device."""

import json
from pathlib import Path

import pytest

from kdedge_runtime.bundle import BundleError, Manifest
from kdedge_runtime.bundle.manifest import accept_version
from kdedge_runtime.errors import UsageError

KEY, OTHER = bytes(32), bytes([1] * 32)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    return tmp_path / "state" / "bundle-versions.json"


def test_rollback_is_rejected_per_key(state: Path) -> None:
    for version in (2, 2, 5):
        accept_version(Manifest(version), KEY, "auto")
    for version in (0, 2, 4):
        with pytest.raises(BundleError, match="version 5 ran here"):
            accept_version(Manifest(version), KEY, "auto")
    accept_version(Manifest(1), OTHER, "auto")
    assert json.loads(state.read_text()) == {KEY.hex(): 5, OTHER.hex(): 1}
    state.unlink()
    accept_version(Manifest(1), KEY, "auto")


def test_bundle_for_another_device_is_rejected_without_recording_its_version(state: Path) -> None:
    with pytest.raises(BundleError, match=r"for raspberry-pi-4, but this device is raspberry-pi-5"):
        accept_version(Manifest(9, "raspberry-pi-4"), KEY, "raspberry-pi-5")
    assert not state.exists()
    accept_version(Manifest(1, "raspberry-pi-5"), KEY, "raspberry-pi-5")
    accept_version(Manifest(1, None), KEY, "raspberry-pi-4")
    with pytest.raises(UsageError):
        accept_version(Manifest(1, "raspberry-pi-5"), KEY, "no such device")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"version": 0, "device": null}',
        '{"version": "2", "device": null}',
        '{"version": true, "device": null}',
        '{"version": 2, "device": 3}',
        '{"version": 1e400, "device": null}',
        "[" * 9000,
        "1" * 20_000,
    ],
)
def test_damaged_manifest_is_rejected(tmp_path: Path, content: str) -> None:
    (tmp_path / "bundle.json").write_text(content)
    with pytest.raises(BundleError, match="damaged"):
        Manifest.read(tmp_path / "bundle.json")


def test_manifest_round_trip(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_bytes(Manifest(3, "generic").to_json())
    assert Manifest.read(tmp_path / "bundle.json") == Manifest(3, "generic")
    assert Manifest.read(None) == Manifest(0, None)


@pytest.mark.parametrize("content", ["nonsense", "[]", '{"a": "b"}'])
def test_damaged_version_file_is_rejected(state: Path, content: str) -> None:
    state.parent.mkdir()
    state.write_text(content)
    with pytest.raises(BundleError, match="Remove it"):
        accept_version(Manifest(1), KEY, "auto")


def test_missing_home_folder_error_names_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(BundleError, match="XDG_STATE_HOME"):
        accept_version(Manifest(1), KEY, "auto")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    accept_version(Manifest(1), KEY, "auto")
    assert (tmp_path / "kdedge" / "bundle-versions.json").is_file()
