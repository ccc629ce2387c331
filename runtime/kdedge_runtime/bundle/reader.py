"""Verification and unpacking of bundles."""

import errno
import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Protocol

from kdedge_runtime.bundle.checksums import MODELS, SIGNATURE, SUMS, BundleError, is_plain_name, parse_checksums
from kdedge_runtime.bundle.signature import SIGNATURE_BYTES, verify_signature
from kdedge_runtime.util.temporary_files import scratch_folder

__all__ = ["open_bundle"]

_MOST_SUMS_BYTES = 100_000
_CHUNK_BYTES = 1 << 20
_RECORD_OF_A_RUN = "run.json"
"""Run record in every run folder, see kdedge.models.run_folder."""


@contextmanager
def open_bundle(path: Path, public_key: bytes | None = None) -> Iterator[dict[str, Path]]:
    """Verify a bundle and yield its listed files by name. A .zip is unpacked for the duration of the block.

    A model that is not listed is an error; other unlisted files are ignored. The files in a .zip must be stored
    uncompressed, as `kdedge bundle` writes them, which rules out decompression bombs. A folder is used in place, so
    users with write access can still modify it after the verification.

    Args:
        path: bundle folder or .zip.
        public_key: 32 bytes; a signature with this key is required. None verifies only the checksums.

    Raises:
        BundleError: the path is not a bundle, its signature is missing or invalid, a file is missing or modified, or a
        name refers to a file outside the bundle.
        MissingDependency: a signature is required, but the package cryptography is not installed.
    """
    with ExitStack() as stack:
        if path.is_dir():
            files = _checked(path, _Folder(path), public_key)
        else:
            files = _unpacked(path, stack.enter_context(scratch_folder("bundle")), public_key)
        yield files


def _unpacked(path: Path, target: Path, public_key: bytes | None) -> dict[str, Path]:
    if not path.is_file():
        raise BundleError(f"The bundle {path} does not exist. Create one with `kdedge bundle RUN -o {path}`.")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive.infolist())
            return _checked(path, _Archive(archive, target), public_key)
    # Errors of zipfile. The only relevant system error is a file before the archive's beginning.
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise BundleError(f"{path} is damaged or not a .zip file ({error}). Copy the bundle again.") from error


def _no_bundle(path: Path, *, signed: bool) -> str:
    """Describe a path without checksums and the command to use instead. `signed`: True if a signature is required."""
    is_run = (path / _RECORD_OF_A_RUN).is_file()
    told = f"{path} is a run, not a bundle." if is_run else f"{path} is not a bundle: it has no {SUMS}."
    # The quantized model first, because it is the one for devices.
    inside = next((path / name for name in reversed(MODELS) if (path / name).is_file()), None)
    if inside is None:
        return f"{told} " + (
            f"Export its model with `kdedge export {path}`." if is_run else "Create one with `kdedge bundle RUN`."
        )
    if signed:
        return f"{told} A signature is required: pack it with `kdedge bundle {path if is_run else inside} --sign KEY`."
    return f"{told} Pass the model file in it: {inside}."


def _checked(path: Path, source: "_Source", public_key: bytes | None) -> dict[str, Path]:
    sums = _small(source, SUMS, _MOST_SUMS_BYTES)
    if sums is None:
        raise BundleError(_no_bundle(path, signed=public_key is not None))
    if public_key is not None:
        _check_signature(path, sums, _small(source, SIGNATURE, SIGNATURE_BYTES), public_key)
    digests = parse_checksums(sums, str(path))
    for name in MODELS:
        if name not in digests and source.holds(name):
            raise BundleError(
                f"{path} contains {name}, which is not listed in its {SUMS}. Remove it, or pack the bundle again."
            )
    files: dict[str, Path] = {}
    for name, digest in digests.items():
        found = source.fetch(name)
        if found is None:
            raise BundleError(f"{path} lacks {name}, which is listed in its {SUMS}. Copy the whole bundle again.")
        files[name], actual = found
        if actual != digest:
            raise BundleError(
                f"{name} in {path} was modified: its SHA-256 is {actual[:12]}…, expected {digest[:12]}…. Do not use "
                "it; copy the bundle again from its origin."
            )
    return files


class _Source(Protocol):
    def holds(self, name: str) -> bool: ...

    def open(self, name: str) -> IO[bytes] | None: ...

    def fetch(self, name: str) -> tuple[Path, str] | None:
        """Return the path of a file and its SHA-256; None if it does not exist."""


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def holds(self, name: str) -> bool:
        return (self._path / name).exists()

    def open(self, name: str) -> IO[bytes] | None:
        file = self._path / name
        if file.is_symlink():
            raise BundleError(f"{file} is a link. Expected a regular file in the bundle; copy the bundle again.")
        return file.open("rb") if file.is_file() else None

    def fetch(self, name: str) -> tuple[Path, str] | None:
        opened = self.open(name)
        if opened is None:
            return None
        with opened:
            return self._path / name, _digest(opened)


class _Archive:
    def __init__(self, archive: zipfile.ZipFile, target: Path) -> None:
        self._archive = archive
        self._target = target

    def holds(self, name: str) -> bool:
        return name in self._archive.namelist()

    def open(self, name: str) -> IO[bytes] | None:
        return self._archive.open(name) if self.holds(name) else None

    def fetch(self, name: str) -> tuple[Path, str] | None:
        opened = self.open(name)
        if opened is None:
            return None
        with opened, (self._target / name).open("wb") as written:
            return self._target / name, _digest(opened, written)


def _digest(content: IO[bytes], copy: IO[bytes] | None = None) -> str:
    digest = hashlib.sha256()
    while chunk := content.read(_CHUNK_BYTES):
        digest.update(chunk)
        if copy is not None:
            copy.write(chunk)
    return digest.hexdigest()


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        if not is_plain_name(member.filename):
            raise BundleError(
                f"{path} contains {member.filename[:80]!r}, which is outside the bundle. Expected plain file names; "
                "do not use this bundle."
            )
        if member.compress_type != zipfile.ZIP_STORED:
            raise BundleError(
                f"{path} contains {member.filename} compressed, so its unpacked size is unknown. Expected "
                "uncompressed files: pack it with `kdedge bundle`, or with `zip -0`."
            )
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise BundleError(f"{path} contains a file twice. Pack the bundle again.")
    # Overlapping members could still exceed the size of the archive.
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise BundleError(f"{path} declares more content than its size. Do not use this bundle.")


def _small(source: _Source, name: str, most_bytes: int) -> bytes | None:
    opened = source.open(name)
    if opened is None:
        return None
    with opened:
        content = opened.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise BundleError(f"{name} exceeds {most_bytes:,} bytes. Pack the bundle again.")
    return content


def _check_signature(path: Path, sums: bytes, signature: bytes | None, public_key: bytes) -> None:
    if signature is None:
        raise BundleError(
            f"{path} is not signed, but a signature is required. Pack it with `kdedge bundle --sign KEY`."
        )
    if not verify_signature(public_key, sums, signature):
        raise BundleError(
            f"{path} was not signed with the key {public_key.hex()[:12]}…, or its {SUMS} was modified afterwards. Do "
            "not use it; copy the bundle again from its origin."
        )
