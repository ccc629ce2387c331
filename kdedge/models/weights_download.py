"""Downloads of published weights into the caches of PyTorch Hub and the Hugging Face Hub.

A file in a cache is used without a connection if its hash is right, and replaced otherwise. Both libraries write to a
temporary file first, so an interrupted download leaves the cache unchanged.
"""

import hashlib
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

from kdedge.models.digest import state_sha256
from kdedge.models.weight_files import read_state
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.files import atomic_write
from kdedge_runtime.util.optional_package import needs_package

__all__ = ["fetch_from_hugging_face", "fetch_from_url"]

_TIMEOUT_S = 30
_SHA256_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")
"""First digits of the SHA-256 in a file name, as PyTorch Hub defines it; shorter ones are not hashes."""


def fetch_from_url(network: str, url: str) -> Path:
    """Return the local copy of a file in the cache of PyTorch Hub, downloaded if necessary.

    Args:
        network: name of the network for messages.
        url: address of the file. Its name contains the first digits of the SHA-256, or no hash. Without one, the hash
            of the first download is recorded in a file `NAME.sha256` next to it.

    Raises:
        UsageError: the file is missing or damaged, and cannot be downloaded.
    """
    import torch.hub

    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    is_cached = path.is_file()
    found = _SHA256_IN_NAME.search(path.name)
    record = path.with_name(f"{path.name}.sha256")
    prefix = found[1] if found is not None else _read_hash(record) if is_cached else None
    if is_cached and (prefix is None or state_sha256(path).startswith(prefix)):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _timeout():
            torch.hub.download_url_to_file(url, str(path), prefix, progress=sys.stderr.isatty())
    except Exception as error:  # of the network, the server, the disk, or a wrong hash
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise _unavailable(network, path.name, path.parent, url, error, damaged=is_cached) from error
    if prefix is None:
        _require_readable(path)
        atomic_write(record, state_sha256(path))
    return path


def fetch_from_hugging_face(network: str, repository: str, names: Sequence[str]) -> Path:
    """Return the local copy of a file in the cache of the Hugging Face Hub, downloaded if necessary.

    The library honors HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.

    Args:
        network: name of the network for messages.
        repository: repository, such as `timm/resnet18.a1_in1k`.
        names: file names in order of preference; the first one that exists is used.

    Raises:
        UsageError: no file exists, or it is missing or damaged and cannot be downloaded.
        MissingDependency: huggingface_hub is not installed.
    """
    with needs_package(f"A download of {network}", "huggingface_hub", "pip install huggingface_hub"):
        from huggingface_hub import (
            constants,
            get_hf_file_metadata,
            hf_hub_download,
            hf_hub_url,
            try_to_load_from_cache,
        )
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    cached = (try_to_load_from_cache(repository, name) for name in names)
    copies = [Path(path) for path in cached if isinstance(path, str)]
    if copies and _is_intact(copies[0]):
        return copies[0]
    page, folder = f"{constants.ENDPOINT}/{repository}", Path(constants.HF_HUB_CACHE)
    for name in names:
        try:
            get_hf_file_metadata(hf_hub_url(repository, name))  # fails at once; the download retries for 30 s
            path = Path(hf_hub_download(repository, name, force_download=bool(copies)))
        except Exception as error:  # of the network, the server or the disk
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue
            raise _unavailable(network, name, folder, page, error, damaged=bool(copies)) from error
        if not _is_intact(path):
            raise _unavailable(network, name, folder, page, "the received file has a wrong hash", damaged=True)
        return path
    raise _unavailable(network, names[0], folder, page, "the repository has no such file", damaged=False)


@contextmanager
def _timeout() -> Iterator[None]:
    """Limit the wait for a silent server inside the block; PyTorch Hub sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _is_intact(path: Path) -> bool:
    """Return False if a file of the Hugging Face cache differs from the hash that it is stored under.

    Large files are stored under their SHA-256 and others under their Git hash; copies without a hash are not checked.
    """
    stored = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", stored.name):
        return state_sha256(stored) == stored.name
    if re.fullmatch(r"[0-9a-f]{40}", stored.name):
        content = stored.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == stored.name
    return True


def _read_hash(record: Path) -> str | None:
    """Return the SHA-256 of an earlier download; None if it was not recorded, as by other programs."""
    text = record.read_text(encoding="utf-8", errors="replace").strip() if record.is_file() else ""
    return text if re.fullmatch(r"[0-9a-f]{64}", text) else None


def _require_readable(path: Path) -> None:
    """Delete a downloaded file without a known hash unless its tensors can be read.

    Raises:
        UsageError: the file is damaged.
    """
    try:
        read_state(path)
    except UsageError:
        path.unlink()
        raise


def _unavailable(
    network: str, name: str, folder: Path, url: str, reason: BaseException | str, *, damaged: bool
) -> UsageError:
    """Return the error for weights that cannot be obtained, with every way to get them."""
    state = f"are damaged in the cache {folder}" if damaged else f"are not in the cache {folder}"
    cause = reason.__cause__ if isinstance(reason, BaseException) and reason.__cause__ is not None else reason
    why = next(iter(str(cause).splitlines()), "") or type(cause).__name__
    return UsageError(
        f"The weights {name} of {network} {state}, and cannot be downloaded from {url}: {why.strip(' .')}. Download "
        "them where there is a connection, and use --weights FILE (--teacher-weights FILE for a teacher). "
        "To train or export random weights: --no-pretrained."
    )
