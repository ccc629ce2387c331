"""Ed25519 public keys and signatures of bundles (RFC 8032), verified by the package cryptography."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.optional_package import needs_package

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["SIGNATURE_BYTES", "read_public_key", "verify_signature"]

SIGNATURE_BYTES = 64
_MAX_BYTES = 10_000
_FIELD_PRIME = 2**255 - 19


def read_public_key(text: str) -> bytes:
    """Read an Ed25519 public key.

    Args:
        text: 64 hexadecimal digits, or the path of a PEM file (`openssl pkey -pubout`) or of a file with such digits.

    Returns:
        The key, 32 bytes.

    Raises:
        UsageError: the text is not a public key.
        MissingDependency: the package cryptography is not installed.
    """
    _key_type()
    content = text.encode(errors="replace")
    try:
        if not _is_hex(content) and (path := Path(text)).is_file() and path.stat().st_size < _MAX_BYTES:
            content = path.read_bytes().strip()
    except (OSError, ValueError):  # an invalid file name
        pass
    key = bytes.fromhex(content.decode()) if _is_hex(content) else _read_pem(content)
    if key is None or not _is_canonical(key):
        raise UsageError(
            f"{text} is not an Ed25519 public key. Expected 64 hexadecimal digits, as printed by `kdedge bundle "
            "--sign`, or a PEM file with the public key: `openssl pkey -in maker.pem -pubout -out maker.pub.pem`."
        )
    return key


def verify_signature(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return True if the signature of the message is valid for the public key.

    Args:
        public_key: 32 bytes.
        message: signed message.
        signature: 64 bytes.

    Raises:
        MissingDependency: the package cryptography is not installed.
    """
    key = _key_type().from_public_bytes(public_key)
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _key_type() -> "type[Ed25519PublicKey]":
    install = "`pip install cryptography` or `apt install python3-cryptography`"
    with needs_package("--require-signature", "cryptography", install):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    return Ed25519PublicKey


def _read_pem(content: bytes) -> bytes | None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw) if isinstance(key, _key_type()) else None


def _is_canonical(key: bytes) -> bool:
    """Return True if a key's y coordinate is reduced (RFC 8032, section 5.1.3) and its point has an order above 4.

    OpenSSL accepts other keys. Anyone can sign for points of order 1, 2 or 4.
    """
    return 1 < int.from_bytes(key, "little") & (2**255 - 1) < _FIELD_PRIME - 1


def _is_hex(content: bytes) -> bool:
    return re.fullmatch(rb"[0-9a-fA-F]{64}", content) is not None
