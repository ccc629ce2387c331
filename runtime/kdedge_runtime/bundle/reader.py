"""Verification and unpacking of bundles."""

import errno
import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdedge_runtime.bundle.checksums import SIGNATURE, SUMS, BundleError, is_plain_name, model_names, parse_checksums
from kdedge_runtime.bundle.signature import SIGNATURE_BYTES, verify_signature
from kdedge_runtime.util.file_hint import file_hint
from kdedge_runtime.util.temporary_files import scratch_folder

__all__ = ["open_bundle"]

_MAX_SUMS_BYTES = 100_000
_CHUNK_BYTES = 1 << 20


@contextmanager
def open_bundle(path: Path, public_key: bytes | None = None) -> Iterator[dict[str, Path]]:
    """Unpack and verify a bundle, and yield its listed files by name. They exist for the duration of the block.

    A model that is not listed is an error; other unlisted files are ignored. The files must be stored uncompressed, as
    `kdedge bundle` writes them, which rules out decompression bombs.

    Args:
        path: the .zip file.
        public_key: 32 bytes; a signature with this key is required. None verifies only the checksums.

    Raises:
        BundleError: the path is not a bundle, its signature is missing or invalid, a file is missing or modified, or a
        name refers to a file outside the bundle.
        MissingDependency: a signature is required, but the package cryptography is not installed.
    """
    if not path.is_file():
        raise BundleError(
            f"The bundle {path} does not exist.{file_hint(path)} Create one with `kdedge bundle RUN -o {path}`."
        )
    with scratch_folder("bundle") as target:
        try:
            with zipfile.ZipFile(path) as archive:
                _check_members(path, archive.infolist())
                files = _unpack(path, archive, target, public_key)
        # Errors of zipfile. The only relevant system error is a file before the archive's beginning.
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise BundleError(f"{path} is damaged or not a .zip file ({error}). Copy the bundle again.") from error
        yield files


def _unpack(path: Path, archive: zipfile.ZipFile, target: Path, public_key: bytes | None) -> dict[str, Path]:
    sums = _read_small(archive, SUMS, _MAX_SUMS_BYTES)
    if sums is None:
        raise BundleError(f"{path} is not a bundle: it has no {SUMS}. Create one with `kdedge bundle RUN`.")
    if public_key is not None:
        _check_signature(path, sums, _read_small(archive, SIGNATURE, SIGNATURE_BYTES), public_key)
    digests = parse_checksums(sums, str(path))
    members = archive.namelist()
    for name in model_names().values():
        if name not in digests and name in members:
            raise BundleError(
                f"{path} contains {name}, which is not listed in its {SUMS}. Remove it, or pack the bundle again."
            )
    files: dict[str, Path] = {}
    for name, digest in digests.items():
        if name not in members:
            raise BundleError(f"{path} lacks {name}, which is listed in its {SUMS}. Copy the bundle again.")
        files[name] = target / name
        actual = _extract(archive, name, files[name])
        if actual != digest:
            raise BundleError(
                f"{name} in {path} was modified: its SHA-256 is {actual[:12]}…, expected {digest[:12]}…. Do not use "
                "it; copy the bundle again from its origin."
            )
    return files


def _extract(archive: zipfile.ZipFile, name: str, target: Path) -> str:
    """Write a file of the archive, and return its hexadecimal SHA-256."""
    digest = hashlib.sha256()
    with archive.open(name) as content, target.open("wb") as written:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
            written.write(chunk)
    return digest.hexdigest()


def _read_small(archive: zipfile.ZipFile, name: str, most_bytes: int) -> bytes | None:
    """Return the content of a file of the archive; None if there is no such file."""
    if name not in archive.namelist():
        return None
    with archive.open(name) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise BundleError(f"{name} exceeds {most_bytes:,} bytes. Pack the bundle again.")
    return content


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
