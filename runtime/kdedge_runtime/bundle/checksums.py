"""What a bundle holds, and the list of its files."""

import re
from collections.abc import Mapping

from kdedge_runtime.errors import ModelFileError

__all__ = ["MODELS", "SIGNATURE", "SUMS", "BundleError", "format_sums", "parse_sums"]

MODELS = ("model.onnx", "model.int8.onnx")
SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.ed25519"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""No separators and no leading dot: a name can only mean a file in the bundle itself."""
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


class BundleError(ModelFileError):
    """A bundle is not what its maker packed."""


def is_plain(name: str) -> bool:
    """Whether a name can be that of a file in a bundle."""
    return _NAME.fullmatch(name) is not None


def format_sums(digests: Mapping[str, str]) -> bytes:
    """The content of SHA256SUMS: a line a file, `sha256sum -c` reads it.

    Args:
        digests: hexadecimal SHA-256 by name.
    """
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()


def parse_sums(content: bytes, bundle: str) -> dict[str, str]:
    """Hexadecimal SHA-256 by name.

    Raises:
        BundleError: a line is no sum, a name is not that of a file in the bundle itself or comes twice, or no model is
            listed.
    """
    digests: dict[str, str] = {}
    for line in content.decode("utf-8", "replace").splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise BundleError(f"{SUMS} of {bundle} has a line that is no sum: {line[:80]!r}. Pack the bundle again.")
        digest, name = found.groups()
        if not is_plain(name):
            raise BundleError(
                f"{SUMS} of {bundle} names {name[:80]!r}, which is no file of the bundle itself. Expected plain names; "
                "do not use this bundle."
            )
        if name in digests:
            raise BundleError(f"{SUMS} of {bundle} names {name} twice. Pack the bundle again.")
        digests[name] = digest
    if digests.keys().isdisjoint(MODELS):
        raise BundleError(
            f"{bundle} lists no model. Expected {' or '.join(MODELS)}; write it with `kdedge bundle RUN`."
        )
    return digests
