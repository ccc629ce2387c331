"""Request authorization based on headers: host check, token and origin."""

import hmac
import secrets
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import NamedTuple, Self, TypeAlias
from urllib.parse import urlsplit

from kdedge_runtime.errors import UsageError
from kdedge_runtime.server.address import Address

__all__ = ["AccessPolicy", "Rejection"]

Headers: TypeAlias = "Message[str, str]"
_MIN_TOKEN_LENGTH = 16
_TOKEN_BYTES = 18


class Rejection(NamedTuple):
    """Rejection of a request."""

    status: HTTPStatus
    text: str
    is_guess: bool = False
    """True if the request contained a wrong token."""


@dataclass(frozen=True)
class AccessPolicy:
    """Access policy of a server."""

    address: Address
    token: str | None
    """Token required from clients; None requires none and is only used on loopback addresses."""
    is_printed: bool = True
    """True if the printed URL contains the token."""

    @classmethod
    def at(cls, address: Address, token: str | None = None, *, is_printed: bool = True) -> Self:
        """Create the access policy of an address. Addresses reachable from the network always require a token.

        Args:
            address: address of the server.
            token: token; None generates one if required.
            is_printed: False keeps a given token out of the printed URL and of logs.

        Raises:
            UsageError: the token is too short, or contains characters that are not URL-safe.
        """
        if token is None:
            return cls(address, None if address.is_loopback else secrets.token_urlsafe(_TOKEN_BYTES))
        sound = token.isascii() and token.replace("-", "").replace("_", "").isalnum()
        if not sound or len(token) < _MIN_TOKEN_LENGTH:
            raise UsageError(
                f"The token needs at least {_MIN_TOKEN_LENGTH} characters from A–Z, a–z, 0–9, - and _. Remove it to "
                "generate one."
            )
        return cls(address, token, is_printed)

    def refuse_host(self, headers: Headers) -> Rejection | None:
        """Reject unexpected host names (DNS rebinding)."""
        if self.address.admits(headers.get("Host")):
            return None
        names = "localhost" if self.address.is_loopback else "the address or the name of this machine"
        return Rejection(HTTPStatus.FORBIDDEN, f"This server only accepts requests to {names}.")

    def reject_unauthenticated(self, headers: Headers, cookie: str, url_token: str | None) -> Rejection | None:
        """Reject requests without the token in the URL, in a cookie, or as `Authorization: Bearer TOKEN`.

        Args:
            headers: request headers.
            cookie: name of the cookie.
            url_token: token in the URL, if any.
        """
        if self.token is None:
            return None
        scheme, _, bearer = headers.get("Authorization", "").partition(" ")
        shown = [url_token or "", bearer.strip() if scheme.lower() == "bearer" else "", _cookie(headers, cookie)]
        # Constant-time comparison of all candidates, to prevent timing attacks.
        matches = [hmac.compare_digest(each.encode(), self.token.encode()) for each in shown]
        if any(matches):
            return None
        return Rejection(
            HTTPStatus.UNAUTHORIZED,
            "This server requires its token: open the address that was printed when it started, or send the header "
            "Authorization: Bearer TOKEN.",
            is_guess=any(shown),
        )

    def refuse_foreign_page(self, headers: Headers) -> Rejection | None:
        """Reject cross-site requests (cross-site request forgery).

        Browsers state the origin of every POST and send a preflight request before cross-origin JSON. Programs other
        than browsers send no origin.
        """
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return Rejection(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "The body has another type. Set the header Content-Type: application/json.",
            )
        origin = headers.get("Origin")
        site = headers.get("Sec-Fetch-Site", "same-origin")
        if site not in ("same-origin", "none") or (origin is not None and not _same(origin, headers.get("Host", ""))):
            return Rejection(HTTPStatus.FORBIDDEN, "Only this server's own page may change settings.")
        return None


def _same(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _cookie(headers: Headers, name: str) -> str:
    # Browsers send the cookies of all ports of a host. The standard library's parser drops all of them if a single one
    # is malformed.
    for pair in headers.get("Cookie", "").split(";"):
        key, _, value = pair.partition("=")
        if key.strip() == name:
            return value.strip()
    return ""
