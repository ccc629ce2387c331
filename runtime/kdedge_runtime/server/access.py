"""Who is let in: the rules that every request has to pass, on headers alone."""

import hmac
import secrets
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import NamedTuple, Self, TypeAlias
from urllib.parse import urlsplit

from kdedge_runtime.errors import UsageError
from kdedge_runtime.server.address import Address

__all__ = ["Door", "Refusal"]

Headers: TypeAlias = "Message[str, str]"
_SHORTEST_TOKEN = 16
_TOKEN_BYTES = 18


class Refusal(NamedTuple):
    """Why a request is not answered."""

    status: HTTPStatus
    text: str
    is_guess: bool = False
    """A wrong token was shown."""


@dataclass(frozen=True)
class Door:
    """The rules for one server."""

    address: Address
    token: str | None
    """What a client has to show; None asks for nothing, and is for this machine only."""
    is_printed: bool = True
    """True where the printed address contains the token."""

    @classmethod
    def at(cls, address: Address, token: str | None = None, *, is_printed: bool = True) -> Self:
        """The door of an address: whatever the network can reach has a token, a new one where none is given.

        Args:
            address: where the server listens.
            token: None makes one where it is needed.
            is_printed: False keeps a token that was given out of the address that is printed, and so out of logs.

        Raises:
            UsageError: the token is too short to be safe from guessing, or does not fit into a URL.
        """
        if token is None:
            return cls(address, None if address.is_loopback else secrets.token_urlsafe(_TOKEN_BYTES))
        sound = token.isascii() and token.replace("-", "").replace("_", "").isalnum()
        if not sound or len(token) < _SHORTEST_TOKEN:
            raise UsageError(
                f"The token has to have {_SHORTEST_TOKEN} or more of the characters A–Z, a–z, 0–9, - and _. "
                "Leave it out to have one made."
            )
        return cls(address, token, is_printed)

    def refuse_host(self, headers: Headers) -> Refusal | None:
        """Refuse names that others point at this machine (DNS rebinding)."""
        if self.address.admits(headers.get("Host")):
            return None
        names = "localhost" if self.address.is_loopback else "the address or the name of this machine"
        return Refusal(HTTPStatus.FORBIDDEN, f"This server answers to {names} only.\n")

    def refuse_stranger(self, headers: Headers, cookie: str, asked_with: str | None) -> Refusal | None:
        """Refuse who does not show the token: in the URL, in a cookie, or as `Authorization: Bearer TOKEN`.

        Args:
            headers: of the request.
            cookie: the name of the cookie.
            asked_with: the token in the URL, if any.
        """
        if self.token is None:
            return None
        scheme, _, bearer = headers.get("Authorization", "").partition(" ")
        shown = [asked_with or "", bearer.strip() if scheme.lower() == "bearer" else "", _cookie(headers, cookie)]
        # Compared in constant time, all of them, so that the time tells nothing.
        matches = [hmac.compare_digest(each.encode(), self.token.encode()) for each in shown]
        if any(matches):
            return None
        return Refusal(
            HTTPStatus.UNAUTHORIZED,
            "This server asks for its token: open the address that was printed when it started, or send the header "
            "Authorization: Bearer TOKEN.\n",
            is_guess=any(shown),
        )

    def refuse_foreign_page(self, headers: Headers) -> Refusal | None:
        """Refuse changes that a page from elsewhere asks for in its visitor's name (cross-site request forgery).

        Browsers say on every POST which page sent it, and ask before they send JSON elsewhere; programs without an
        origin act for themselves.
        """
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send application/json.\n")
        origin = headers.get("Origin")
        site = headers.get("Sec-Fetch-Site", "same-origin")
        if site not in ("same-origin", "none") or (origin is not None and not _same(origin, headers.get("Host", ""))):
            return Refusal(HTTPStatus.FORBIDDEN, "Only this server's own page may change anything.\n")
        return None


def _same(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _cookie(headers: Headers, name: str) -> str:
    # Browsers send the cookies of all ports of a host. The standard library's parser drops every one of them where
    # a single one of another program is not to its taste.
    for pair in headers.get("Cookie", "").split(";"):
        key, _, value = pair.partition("=")
        if key.strip() == name:
            return value.strip()
    return ""
