"""Bundle version and target device, with rollback protection."""

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdedge_runtime.bundle.checksums import BundleError
from kdedge_runtime.devices.detection import find_profile
from kdedge_runtime.util.files import atomic_write

__all__ = ["MANIFEST", "Manifest", "accept_version"]

MANIFEST = "bundle.json"
_log = logging.getLogger(__name__)
_MAX_BYTES = 10_000
_MAX_VERSION = 2**53


@dataclass(frozen=True)
class Manifest:
    """Content of `bundle.json`."""

    version: int = 0
    """Version of the signer's bundle, from 1; 0 for a bundle without `bundle.json`."""
    device: str | None = None
    """Target device profile; None for any device."""

    def to_json(self) -> bytes:
        """Return the content of the file."""
        return (json.dumps(asdict(self)) + "\n").encode()

    @classmethod
    def read(cls, path: Path | None) -> "Manifest":
        """Read `bundle.json`.

        Args:
            path: path of the file; None for a bundle without one.

        Raises:
            BundleError: the file is damaged.
        """
        if path is None:
            return cls()
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ValueError("too large")
            values = json.loads(path.read_bytes())
            version, device = values["version"], values["device"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BundleError(f"{MANIFEST} of the bundle is damaged ({error}). Pack the bundle again.") from error
        is_version = isinstance(version, int) and not isinstance(version, bool) and 1 <= version <= _MAX_VERSION
        if not is_version or not isinstance(device, str | None):
            raise BundleError(f"{MANIFEST} of the bundle is damaged: expected a version from 1 and a device name.")
        return cls(version, device)


def accept_version(manifest: Manifest, public_key: bytes, device: str) -> None:
    """Reject a signed bundle for another device, or one older than a bundle accepted before.

    Args:
        manifest: manifest of a bundle signed with this key.
        public_key: 32 bytes; versions are tracked per key.
        device: device profile, or `auto` for that of this machine.

    Raises:
        BundleError: the bundle is rejected.
        UsageError: the device profile does not exist.
    """
    if manifest.device is not None and (here := find_profile(device).name) != manifest.device:
        raise BundleError(
            f"The bundle is for {manifest.device}, but this device is {here}. Use the bundle for {here}, or name the "
            f"device: --device {manifest.device}."
        )
    path = _state_file()
    newest = _read_newest(path)
    known = newest.get(public_key.hex(), 0)
    if manifest.version < known:
        raise BundleError(
            f"The bundle has version {manifest.version}, but version {known} ran here before. Use a newer bundle; to "
            f"downgrade deliberately, remove {path}."
        )
    if manifest.version > known:
        try:
            atomic_write(path, json.dumps(newest | {public_key.hex(): manifest.version}) + "\n")
        except OSError as error:
            _log.warning(
                "The bundle's version cannot be stored in %s (%s): an older bundle would be accepted.", path, error
            )


def _state_file() -> Path:
    """Return the file of accepted versions, in systemd's StateDirectory or in the user's state folder.

    Raises:
        BundleError: the user has no home folder, and no other folder is set.
    """
    if folder := os.environ.get("STATE_DIRECTORY"):
        return Path(folder.partition(":")[0]) / "bundle-versions.json"
    try:
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise BundleError(
            "The bundle's version cannot be compared with earlier ones, because this user has no home folder to "
            "store them. Set a folder: XDG_STATE_HOME=FOLDER."
        ) from error
    return Path(home) / "kdedge" / "bundle-versions.json"


def _read_newest(path: Path) -> dict[str, int]:
    """Return the latest accepted version of each key.

    Raises:
        BundleError: the file is damaged.
    """
    try:
        found: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BundleError(f"{path}, which stores the latest versions, is damaged ({error}). Remove it.") from error
    if not isinstance(found, dict) or not all(isinstance(version, int) for version in found.values()):
        raise BundleError(f"{path}, which stores the latest versions, is damaged. Remove it.")
    return found
