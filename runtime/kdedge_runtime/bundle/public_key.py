"""Ed25519 public keys for bundle verification."""

import base64
import binascii
import re
from pathlib import Path

from kdedge_runtime.bundle.ed25519 import KEY_BYTES
from kdedge_runtime.errors import UsageError

__all__ = ["read_public_key"]

_DER_PREFIX = bytes.fromhex("302a300506032b6570032100")
"""DER prefix of an Ed25519 public key in a PEM file (RFC 8410, section 4)."""
_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----\s(.*?)-----END PUBLIC KEY-----", re.DOTALL)


def read_public_key(text: str) -> bytes:
    """Read an Ed25519 public key.

    Args:
        text: 64 hexadecimal digits, or the path of a PEM file (`openssl pkey -pubout`) or of a file with such digits.

    Returns:
        The key, 32 bytes.

    Raises:
        UsageError: the text is not a public key.
    """
    path = Path(text)
    content = text
    try:
        if not _is_hex(text) and path.is_file() and path.stat().st_size < 10_000:
            content = path.read_text("ascii").strip()
    except (OSError, ValueError):  # an invalid file name, or a file of another type
        content = ""
    if _is_hex(content):
        return bytes.fromhex(content)
    if found := _PEM.search(content):
        try:
            der = base64.b64decode("".join(found[1].split()), validate=True)
        except binascii.Error:
            der = b""
        if der.startswith(_DER_PREFIX) and len(der) == len(_DER_PREFIX) + KEY_BYTES:
            return der[len(_DER_PREFIX) :]
    raise UsageError(
        f"{text} is not an Ed25519 public key. Expected 64 hexadecimal digits, as printed by `kdedge bundle --sign`, "
        "or a PEM file with the public key: `openssl pkey -in maker.pem -pubout -out maker.pub.pem`."
    )


def _is_hex(text: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]{64}", text) is not None
