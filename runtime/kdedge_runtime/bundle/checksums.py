"""Contents of a bundle and its checksum file."""

import re
from collections.abc import Mapping

from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.precision import PRECISIONS

__all__ = ["SIGNATURE", "SUMS", "BundleError", "format_checksums", "model_names", "parse_checksums"]

SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.ed25519"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""File name without separators or leading dot, which can only refer to a file in the bundle itself."""
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


class BundleError(ModelFileError):
    """Invalid or modified bundle."""


def model_names() -> dict[str, str]:
    """Return the file name of each precision in a bundle, from the most to the least exact."""
    return {name: f"model{precision.suffix}" for name, precision in PRECISIONS.items()}


def is_plain_name(name: str) -> bool:
    """Return True if a name is valid for a file in a bundle."""
    return _NAME.fullmatch(name) is not None


def format_checksums(digests: Mapping[str, str]) -> bytes:
    """Return the content of SHA256SUMS, one line per file, readable by `sha256sum -c`.

    Args:
        digests: hexadecimal SHA-256 by file name.
    """
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()


def parse_checksums(content: bytes, bundle: str) -> dict[str, str]:
    """Parse SHA256SUMS into hexadecimal SHA-256 by file name.

    Raises:
        BundleError: a line or name is invalid, a name is repeated, or no model is listed.
    """
    digests: dict[str, str] = {}
    for line in content.decode("utf-8", "replace").splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise BundleError(f"{SUMS} of {bundle} has an invalid line: {line[:80]!r}. Pack the bundle again.")
        digest, name = found.groups()
        if not is_plain_name(name):
            raise BundleError(
                f"{SUMS} of {bundle} lists {name[:80]!r}, which is outside the bundle. Expected plain file names; do "
                "not use this bundle."
            )
        if name in digests:
            raise BundleError(f"{SUMS} of {bundle} lists {name} twice. Pack the bundle again.")
        digests[name] = digest
    names = model_names().values()
    if digests.keys().isdisjoint(names):
        raise BundleError(
            f"{bundle} lists no model. Expected {' or '.join(names)}; create a bundle with `kdedge bundle RUN`."
        )
    return digests
