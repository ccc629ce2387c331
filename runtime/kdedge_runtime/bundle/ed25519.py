"""Ed25519 signature verification (RFC 8032, section 5.1.7) with Python integers.

Only public values are processed, so timing leaks nothing. Signing is left to a library.
"""

import hashlib

__all__ = ["KEY_BYTES", "SIGNATURE_BYTES", "verify"]

KEY_BYTES = 32
SIGNATURE_BYTES = 64
_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)

Point = tuple[int, int, int, int]
"""Extended homogeneous coordinates X, Y, Z, T: x = X/Z, y = Y/Z, xy = T/Z."""


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return True if the signature of the message is valid for the public key.

    Args:
        public_key: 32 bytes.
        message: signed message.
        signature: 64 bytes.
    """
    if len(public_key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    key, commitment = _decompress(public_key), _decompress(signature[:32])
    response = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or response >= _ORDER:  # larger values would make signatures malleable
        return False
    digest = hashlib.sha512(signature[:32] + public_key + message).digest()
    challenge = int.from_bytes(digest, "little") % _ORDER
    return _equal(_multiply(response, _BASE), _add(commitment, _multiply(challenge, key)))


def _decompress(encoded: bytes) -> Point | None:
    """Decode a point (section 5.1.3); None if the encoding is invalid or not canonical."""
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT_OF_MINUS_ONE % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _add(one: Point, other: Point) -> Point:
    """Add two points (section 5.1.4)."""
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _multiply(factor: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while factor:
        if factor & 1:
            result = _add(result, point)
        point = _add(point, point)
        factor >>= 1
    return result


def _equal(one: Point, other: Point) -> bool:
    return (one[0] * other[2] - other[0] * one[2]) % _P == 0 and (one[1] * other[2] - other[1] * one[2]) % _P == 0


_BASE_Y = 4 * pow(5, -1, _P) % _P
_BASE: Point = _decompress(_BASE_Y.to_bytes(32, "little")) or (0, 1, 1, 0)
