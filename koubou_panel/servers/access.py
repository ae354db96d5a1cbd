"""Who gets in: one policy for every port, a pure function of what a request says about itself.

The order is the contract of SECURITY: peer, Host, exact Origin, credentials. Whatever is not plainly
allowed is refused. Nothing here reads a file, a clock or a socket; `guard` puts it before real servers.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from types import MappingProxyType

from koubou_panel.errors import SettingsError

#: What stands for the peer's address when the connection came over a Unix socket.
UNIX_PEER = "unix"

_WHAT_TO_DO = (
    "Access needs the token: open the link that `koubou status` prints, or send the header "
    "`Authorization: Bearer TOKEN` with what `koubou token` prints."
)
BAD_TOKEN = "This token is not the workshop's: `koubou token` prints the present one."  # noqa: S105 - a message


class Role(StrEnum):
    """How much a caller may do: `read` sees, `run` also runs scripts of the catalogue, `full` does everything."""

    READ = "read"
    RUN = "run"
    FULL = "full"

    def covers(self, needed: Role) -> bool:
        """Whether this role may do what `needed` may."""
        return _RANKS[self] >= _RANKS[needed]


_RANKS = {Role.READ: 0, Role.RUN: 1, Role.FULL: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the guard needs of a request; each header with every value it came with, so doubles are seen."""

    method: str
    path: str
    host: tuple[str, ...]
    peer: str
    origin: tuple[str, ...] = ()
    authorization: tuple[str, ...] = ()
    cookie: tuple[str, ...] = ()
    accept_language: tuple[str, ...] = ()
    websocket: bool = False


@dataclass(frozen=True, slots=True)
class Allow:
    """The request may go on as `actor` (who, for the audit) with `role`."""

    role: Role
    actor: str


@dataclass(frozen=True, slots=True)
class Pending:
    """The WebSocket may open, but it is sent nothing until its first frame is a good `auth`."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request ends here: an HTTP status, a stable code, and one plain line saying what to do."""

    status: int
    code: str
    message: str


Verdict = Allow | Pending | Refuse

#: Gives what a cookie's value allows, or None if it is no live session.
SessionLookup = Callable[[str], Allow | None]

#: What the tokens with a name allow, by `token_hash`.
Named = Mapping[str, Allow]
NOBODY: Named = MappingProxyType({})


def token_hash(token: str) -> str:
    """What is kept of a token that has a name: enough to know it again, not to present it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def is_loopback(address: str) -> bool:
    """Whether a host name or an IP address can only mean this machine."""
    if address == "localhost":
        return True
    try:
        ip = ip_address(address.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)


def loopback_origins(port: int, *, tls: bool = False) -> frozenset[str]:
    """The origins a browser may show for a page that this machine serves on `port`."""
    scheme = "https" if tls else "http"
    return frozenset(
        f"{scheme}://{host}" for host in _with_port(["127.0.0.1", "localhost", "[::1]"], port, tls=tls)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who gets in at one port.

    Args:
        token: opens everything. Never empty.
        port: the port bound (1 to 65535), part of every allowed Host and Origin.
        read_token: opens reading only; None for none.
        named: tokens of their own for agents, each with what it allows.
        bind: the address listened on. A wider one than loopback needs TLS, or a proxy and `extra_hosts`.
        tls: the port itself speaks TLS.
        behind_proxy: a proxy that speaks TLS stands before the port.
        extra_hosts: further values of Host, exactly as a client sends them (`NAME` or `NAME:PORT`).
        extra_origins: further values of Origin, exactly as a browser sends them.
        insecure_no_auth: no credentials are asked for; Host and Origin still are. Loopback only.
        honours_cookies: a session cookie counts as credentials (the dashboard's port alone).
        auth_by_frame: paths whose WebSocket may open without credentials and give them as its first frame;
            `*` for every path.

    Raises:
        SettingsError: an empty or unprintable token, or a wide address without what it needs.

    """

    token: str = field(repr=False)
    port: int
    read_token: str | None = field(default=None, repr=False)
    named: Named = field(default_factory=lambda: NOBODY, repr=False)
    bind: str = "127.0.0.1"
    tls: bool = False
    behind_proxy: bool = False
    extra_hosts: tuple[str, ...] = ()
    extra_origins: tuple[str, ...] = ()
    insecure_no_auth: bool = False
    honours_cookies: bool = False
    auth_by_frame: tuple[str, ...] = ()
    hosts: frozenset[str] = field(init=False)
    origins: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Refuse what would open more than was meant, and work out the allowed names once."""
        for token in (self.token, *([] if self.read_token is None else [self.read_token])):
            require_token(token)
        if self.read_token is not None and self.verify_token(self.read_token) is Role.FULL:
            raise SettingsError("The read token is the same as the full token: give it another value.")
        self._require_safe_bind()
        extra = frozenset(host.lower() for host in self.extra_hosts)
        object.__setattr__(self, "hosts", self._own_hosts() | extra)
        object.__setattr__(self, "origins", self._own_origins() | frozenset(self.extra_origins))

    @property
    def cookie_name(self) -> str:
        """The session cookie's name. Cookies do not tell ports apart, so the name does."""
        return f"koubou-{self.port}"

    @property
    def secure_cookies(self) -> bool:
        """Whether browsers reach the port over TLS, so that the cookie must not travel without."""
        return self.tls or self.behind_proxy

    def check(self, request: Request, *, session: SessionLookup | None = None) -> Verdict:
        """Say whether `request` may go on: peer, Host, Origin, then credentials.

        Args:
            request: what the request says about itself.
            session: finds a cookie's session; without it, or where not honoured, cookies are ignored.

        """
        return self.screen(request) or self._credentials(request, session)

    def screen(self, request: Request) -> Refuse | None:
        """Give the refusal a request earns before its credentials are looked at, or None."""
        return self._refuse_peer(request) or self._refuse_host(request) or self._refuse_origin(request)

    def verify_token(self, presented: str) -> Role | None:
        """Give the role that a presented token has here, or None."""
        found = self.recognise(presented)
        return None if found is None else found.role

    def recognise(self, presented: str) -> Allow | None:
        """Give what a presented token allows here, or None. How long it takes tells nothing of a token."""
        given = presented.encode("utf-8", "surrogatepass")
        is_full = hmac.compare_digest(given, self.token.encode())
        is_read = hmac.compare_digest(given, (self.read_token or "").encode()) and self.read_token is not None
        if is_full:
            return Allow(Role.FULL, "token")
        return Allow(Role.READ, "read-token") if is_read else self.named.get(token_hash(presented))

    def _refuse_peer(self, request: Request) -> Refuse | None:
        # `panel serve` without --address listens everywhere, whatever `bind` says, and a Host can be typed.
        if not is_loopback(self.bind) or request.peer == UNIX_PEER or is_loopback(request.peer):
            return None
        return Refuse(403, "bad_peer", "This workshop answers its own machine only.")

    def _refuse_host(self, request: Request) -> Refuse | None:
        # A target that is not a path (`GET http://other/`) names a second host, which would win over Host.
        if request.path.startswith("/") and len(request.host) == 1 and _lower(request.host[0]) in self.hosts:
            return None
        return Refuse(
            403,
            "bad_host",
            "This address is not one the workshop answers to: open the link that `koubou status` prints.",
        )

    def _refuse_origin(self, request: Request) -> Refuse | None:
        if not request.origin or (len(request.origin) == 1 and request.origin[0] in self.origins):
            return None
        return Refuse(403, "bad_origin", "A page of another site may not use this workshop.")

    def _credentials(self, request: Request, session: SessionLookup | None) -> Verdict:
        if self.insecure_no_auth:
            return self._open_door(request)
        if request.authorization:
            return self._bearer(request.authorization)
        if session is not None and self.honours_cookies:
            for value in cookie_values(request.cookie, self.cookie_name):
                if (found := session(value)) is not None:
                    return found
        if self._may_wait(request):
            return Pending()
        return Refuse(401, "unauthorized", _WHAT_TO_DO)

    def _open_door(self, request: Request) -> Allow:
        verdict = self._bearer(request.authorization)
        return verdict if isinstance(verdict, Allow) else Allow(Role.FULL, "anyone")

    def _bearer(self, values: tuple[str, ...]) -> Allow | Refuse:
        if len(values) != 1:
            return Refuse(401, "unauthorized", "Send one Authorization header.")
        scheme, _, presented = values[0].partition(" ")
        found = self.recognise(presented.strip(" ")) if scheme.lower() == "bearer" else None
        return found or Refuse(401, "unauthorized", BAD_TOKEN)

    def _may_wait(self, request: Request) -> bool:
        if not request.websocket or request.method != "GET":
            return False
        return "*" in self.auth_by_frame or request.path in self.auth_by_frame

    def _require_safe_bind(self) -> None:
        if self.insecure_no_auth and (self.behind_proxy or not is_loopback(self.bind)):
            raise SettingsError(
                "--insecure-no-auth is for loopback alone: leave out --host and --behind-proxy, or "
                "use the token."
            )
        if not is_loopback(self.bind) and not self.tls and not (self.behind_proxy and self.extra_hosts):
            raise SettingsError(
                f"--host {self.bind} would send the token in the clear, and TLS is not there yet: leave --host "
                "out, and reach this machine by an SSH tunnel (ssh -L 8080:127.0.0.1:8080 HOST)."
            )

    def _own_hosts(self) -> frozenset[str]:
        bound = [] if self.bind in ("", "0.0.0.0", "::") else [_bracketed(self.bind.lower())]  # noqa: S104 - not bound here
        return _with_port(["127.0.0.1", "localhost", "[::1]", *bound], self.port, tls=self.tls)

    def _own_origins(self) -> frozenset[str]:
        scheme = "https" if self.tls else "http"
        own = frozenset(f"{scheme}://{host}" for host in self._own_hosts())
        outside = "https" if self.secure_cookies else "http"
        return own | frozenset(f"{outside}://{host.lower()}" for host in self.extra_hosts)


def cookie_values(headers: tuple[str, ...], name: str) -> list[str]:
    """Every value that the Cookie headers give to `name`, in their order."""
    # http.cookies gives up on a whole header for one odd neighbour, and keeps only the last of a name.
    pairs = (pair.partition("=") for header in headers for pair in header.split(";"))
    return [value.strip().strip('"') for key, _, value in pairs if key.strip() == name]


def require_token(token: str) -> str:
    """Give `token` back if it can serve as one.

    Raises:
        SettingsError: it is empty, or cannot travel in a header.

    """
    if not token:
        raise SettingsError(
            "The token is empty. An empty token never switches access off: unset it, or give one."
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError(
            "The token has a space or a character that no header can carry: use letters and digits."
        )
    return token


def _with_port(hosts: list[str], port: int, *, tls: bool) -> frozenset[str]:
    # Clients leave the scheme's own port out of Host and Origin.
    bare = hosts if port == (443 if tls else 80) else []
    return frozenset([f"{host}:{port}" for host in hosts] + bare)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _lower(host: str) -> str:
    # Only ASCII is folded: str.lower() maps the Kelvin sign onto `k`.
    return host.lower() if host.isascii() else host
