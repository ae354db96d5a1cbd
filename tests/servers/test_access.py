"""The policy: who is let in, told apart from any server."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from koubou_panel.errors import SettingsError
from koubou_panel.servers.access import (
    UNIX_PEER,
    Access,
    Allow,
    Pending,
    Refuse,
    Request,
    Role,
    cookie_values,
    is_loopback,
    loopback_origins,
    token_hash,
)

TOKEN = "t" * 43
READ = "r" * 43
PORTS = [8080, 8765, 8766]


def access(**changes) -> Access:
    """Give the dashboard port's policy, but for `changes`."""
    return Access(**({"token": TOKEN, "read_token": READ, "port": 8080} | changes))


def request(**changes) -> Request:
    """Give a request that is let in, but for `changes`."""
    asked = Request(
        method="GET",
        path="/",
        host=("127.0.0.1:8080",),
        peer="127.0.0.1",
        authorization=(f"Bearer {TOKEN}",),
    )
    return replace(asked, **changes)


def code_of(verdict) -> str | None:
    """Give a refusal's code; None if it is none."""
    return verdict.code if isinstance(verdict, Refuse) else None


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("host", ["127.0.0.1:{}", "localhost:{}", "[::1]:{}", "LocalHost:{}"])
def test_own_hosts_are_answered(host, port):
    """The loopback names with the port are answered, in any case of letters."""
    verdict = access(port=port).check(request(host=(host.format(port),)))
    assert verdict == Allow(Role.FULL, "token")


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example:{}",
        "127.0.0.1.evil.example:{}",
        "127.0.0.1.nip.io:{}",
        "localhost.evil.example:{}",
        "a.localhost:{}",
        "localhost.:{}",
        "127.0.0.1.:{}",
        "127.1:{}",
        "127.0.0.2:{}",
        "2130706433:{}",
        "0x7f000001:{}",
        "0.0.0.0:{}",
        "[::]:{}",
        "[::ffff:127.0.0.1]:{}",
        "::1:{}",
        "user@127.0.0.1:{}",
        "127.0.0.1:{}@evil.example",
        "127.0.0.1:{}/",
        "127.0.0.1:{}, evil.example",
        "127.0.0.1:0{}",
        "127.0.0.1:{}0",
        "127.0.0.1:1",
        "127.0.0.1:",
        "127.0.0.1",
        "localhost",
        " 127.0.0.1:{}",
        "localhost:{}\u200b",
        "l\u00f6calhost:{}",
        "",
    ],
)
def test_other_hosts_are_refused(host, port):
    """A Host that is not exactly one of ours is refused, however good the token."""
    assert code_of(access(port=port).check(request(host=(host.format(port),)))) == "bad_host"


def test_a_host_with_the_kelvin_sign_is_not_folded():
    """Only ASCII letters are folded: a look-alike that lower() maps onto `k` stays foreign."""
    verdict = access(extra_hosts=("koubou:8080",)).check(request(host=("\u212aoubou:8080",)))
    assert code_of(verdict) == "bad_host"


@pytest.mark.parametrize(
    "host", [(), ("127.0.0.1:8080", "127.0.0.1:8080"), ("127.0.0.1:8080", "evil.example")]
)
def test_missing_and_doubled_host_are_refused(host):
    """A request has exactly one Host header."""
    assert code_of(access().check(request(host=host))) == "bad_host"


@pytest.mark.parametrize(
    "path", ["http://evil.example/", "http://127.0.0.1:8080/", "evil.example:443", "*", ""]
)
def test_a_target_that_is_no_path_is_refused(path):
    """A request target that names a host of its own is refused, since it would win over Host."""
    assert code_of(access().check(request(path=path))) == "bad_host"


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("origin", ["http://127.0.0.1:{}", "http://localhost:{}", "http://[::1]:{}"])
def test_own_origins_are_let_through(origin, port):
    """Our own pages may ask."""
    verdict = access(port=port).check(request(host=(f"localhost:{port}",), origin=(origin.format(port),)))
    assert isinstance(verdict, Allow)


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.example",
        "http://evil.example:{}",
        "http://127.0.0.1:1",
        "http://127.0.0.1",
        "http://127.0.0.1:{}/",
        "http://127.0.0.1:{}0",
        "http://127.0.0.1.:{}",
        "http://127.0.0.1.evil.example:{}",
        "http://a.localhost:{}",
        "http://localhost.:{}",
        "http://user@localhost:{}",
        "http://localhost:{}@evil.example",
        "HTTP://LOCALHOST:{}",
        "http://LOCALHOST:{}",
        "https://localhost:{}",
        "ws://localhost:{}",
        "file://",
        "chrome-extension://abc",
        "localhost:{}",
        "http://localhost:{} http://evil.example",
        "http://localhost:{},http://evil.example",
    ],
)
def test_other_origins_are_refused(origin, method, port):
    """An Origin that is not exactly one of ours is refused for every verb, however good the token."""
    asked = request(method=method, host=(f"localhost:{port}",), origin=(origin.format(port),))
    assert code_of(access(port=port).check(asked)) == "bad_origin"
    assert code_of(access(port=port).check(replace(asked, method="GET", websocket=True))) == "bad_origin"


def test_two_origins_are_refused():
    """A doubled Origin is refused even if both are ours."""
    origins = ("http://localhost:8080", "http://localhost:8080")
    assert code_of(access().check(request(origin=origins))) == "bad_origin"


def test_the_socket_port_takes_the_dashboards_origin():
    """A port accepts the origins it is told to, and each loopback name of them."""
    socket = access(port=8766, extra_origins=tuple(loopback_origins(8080)))
    for origin in loopback_origins(8080):
        assert isinstance(socket.check(request(host=("localhost:8766",), origin=(origin,))), Allow)


def test_host_comes_before_origin_and_origin_before_credentials():
    """The order of the checks is peer, Host, Origin, credentials."""
    wrong = request(peer="192.0.2.1", host=("evil.example",), origin=("null",), authorization=())
    found = [code_of(access().check(wrong))]
    for mended in ({"peer": "::1"}, {"host": ("localhost:8080",)}, {"origin": ()}):
        wrong = replace(wrong, **mended)
        found.append(code_of(access().check(wrong)))
    assert found == ["bad_peer", "bad_host", "bad_origin", "unauthorized"]


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        (UNIX_PEER, True),
        ("", False),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("fe80::1%eth0", False),
        ("localhost.evil.example", False),
    ],
)
def test_a_loopback_port_answers_its_own_machine(peer, local):
    """Where loopback was meant, a peer from elsewhere is refused even if the server listens everywhere."""
    assert isinstance(access().check(request(peer=peer)), Allow) is local


@pytest.mark.parametrize(
    ("header", "verdict"),
    [
        (f"Bearer {TOKEN}", Allow(Role.FULL, "token")),
        (f"bearer {TOKEN}", Allow(Role.FULL, "token")),
        (f"Bearer  {TOKEN} ", Allow(Role.FULL, "token")),
        (f"Bearer {READ}", Allow(Role.READ, "read-token")),
    ],
)
def test_a_bearer_token_gives_its_role(header, verdict):
    """The full token gives full, the read token gives read."""
    assert access().check(request(authorization=(header,))) == verdict


BAD_AUTHORIZATION = [
    (),
    ("",),
    ("Bearer",),
    ("Bearer ",),
    ("Bearer x",),
    (f"Bearer {TOKEN}x",),
    (f"Bearer {TOKEN[:-1]}",),
    (f"Bearer {TOKEN.upper()}",),
    (f"Bearer {TOKEN},{TOKEN}",),
    (f"Basic {TOKEN}",),
    (TOKEN,),
    ("Bearer \u00e9\u00ff",),
    ("Bearer \udcff",),
    (f"Bearer {TOKEN}\x00",),
    (f"Bearer {TOKEN}", f"Bearer {TOKEN}"),
    (f"Bearer {TOKEN}", "Bearer x"),
]


@pytest.mark.parametrize("authorization", BAD_AUTHORIZATION)
def test_bad_credentials_are_refused_with_what_to_do(authorization):
    """Missing, wrong, doubled or unreadable credentials are a 401 whose one line names a command to run."""
    verdict = access(auth_by_frame=("/ws",)).check(request(authorization=authorization))
    assert isinstance(verdict, Refuse)
    assert verdict.status == 401
    assert "\n" not in verdict.message


@pytest.mark.parametrize("authorization", BAD_AUTHORIZATION[1:])
def test_a_bad_token_does_not_wait_for_a_better_one(authorization):
    """A WebSocket that presents a wrong token is refused before the upgrade."""
    asked = request(path="/ws", websocket=True, authorization=authorization)
    assert code_of(access(auth_by_frame=("*",)).check(asked)) == "unauthorized"


@pytest.mark.parametrize(
    ("paths", "path", "method", "websocket", "waits"),
    [
        (("*",), "/", "GET", True, True),
        (("*",), "/any/path", "GET", True, True),
        (("*",), "/", "GET", False, False),
        (("*",), "/", "POST", True, False),
        (("/ws",), "/ws", "GET", True, True),
        (("/ws",), "/ws", "GET", False, False),
        (("/ws",), "/ws/", "GET", True, False),
        (("/ws",), "/WS", "GET", True, False),
        (("/ws",), "//ws", "GET", True, False),
        (("/ws",), "/dashboard/ws", "GET", True, False),
        ((), "/ws", "GET", True, False),
    ],
)
def test_only_a_websocket_at_a_named_path_may_wait(paths, path, method, websocket, waits):
    """Without credentials a WebSocket may open and wait, at the paths that say so and nowhere else."""
    asked = request(path=path, method=method, websocket=websocket, authorization=())
    assert isinstance(access(auth_by_frame=paths).check(asked), Pending) is waits


def test_cookies_count_where_they_are_honoured_alone():
    """The same cookie opens the port that honours cookies and no other."""

    def session(value):
        return Allow(Role.READ, "page-1") if value == "good" else None

    asked = request(authorization=(), cookie=("a=b; koubou-8080=good; c=d",))
    assert access(honours_cookies=True).check(asked, session=session) == Allow(Role.READ, "page-1")
    assert code_of(access().check(asked, session=session)) == "unauthorized"
    assert code_of(access(honours_cookies=True).check(asked)) == "unauthorized"


def test_a_bad_token_is_not_saved_by_a_cookie():
    """Who presents a wrong token is refused although the cookie is good."""
    asked = request(authorization=("Bearer x",), cookie=("koubou-8080=good",))
    verdict = access(honours_cookies=True).check(asked, session=lambda _: Allow(Role.FULL, "page-1"))
    assert code_of(verdict) == "unauthorized"


@pytest.mark.parametrize(
    ("headers", "values"),
    [
        (("koubou-8080=a",), ["a"]),
        (("koubou-8080=a; koubou-8080=b",), ["a", "b"]),
        (("x=1", "koubou-8080=a"), ["a"]),
        (('koubou-8080="a"',), ["a"]),
        (("bad[]@ =; {json}; koubou-8080=a=b",), ["a=b"]),
        (("xkoubou-8080=a; koubou-80801=b; KOUBOU-8080=c",), []),
        (("koubou-8080",), [""]),
        ((), []),
    ],
)
def test_cookie_values_are_found_among_odd_neighbours(headers, values):
    """Every value of the one exact name is found, whatever else the header holds."""
    assert cookie_values(headers, "koubou-8080") == values


def test_no_auth_lets_anyone_of_this_machine_in_and_still_checks_the_rest():
    """--insecure-no-auth drops the credentials, not the peer, Host and Origin."""
    door = access(insecure_no_auth=True)
    for authorization in BAD_AUTHORIZATION:
        assert door.check(request(authorization=authorization)) == Allow(Role.FULL, "anyone")
    assert door.check(request(authorization=(f"Bearer {READ}",))) == Allow(Role.READ, "read-token")
    for wrong in ({"peer": "192.0.2.1"}, {"host": ("evil.example:8080",)}, {"origin": ("null",)}):
        assert isinstance(door.check(request(**wrong)), Refuse)


@pytest.mark.parametrize(
    "changes",
    [
        {"bind": "0.0.0.0"},
        {"bind": ""},
        {"bind": "192.0.2.1", "tls": True},
        {"bind": "host.example", "tls": True},
        {"behind_proxy": True, "extra_hosts": ("koubou.example",)},
    ],
)
def test_no_auth_is_refused_beyond_loopback(changes):
    """--insecure-no-auth and an address that others can reach do not go together."""
    with pytest.raises(SettingsError, match="--insecure-no-auth"):
        access(insecure_no_auth=True, **changes)


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "", "192.0.2.1", "koubou.example"])
def test_a_wide_address_needs_tls_or_a_proxy(bind):
    """A wider address is refused unless TLS, or a proxy and the name it answers to, are given."""
    for changes in ({}, {"behind_proxy": True}, {"extra_hosts": ("koubou.example",)}):
        with pytest.raises(SettingsError, match="TLS"):
            access(bind=bind, **changes)
    assert access(bind=bind, tls=True)
    assert access(bind=bind, behind_proxy=True, extra_hosts=("koubou.example",))


def test_an_allowed_name_is_answered_with_its_https_origin():
    """Behind a proxy the allowed name and its https origin are let through, and its http origin is not."""
    door = access(bind="0.0.0.0", behind_proxy=True, extra_hosts=("Koubou.example",))
    asked = request(host=("koubou.example",), peer="192.0.2.7", origin=("https://koubou.example",))
    assert isinstance(door.check(asked), Allow)
    assert code_of(door.check(replace(asked, origin=("http://koubou.example",)))) == "bad_origin"
    assert door.secure_cookies


@pytest.mark.parametrize(("tls", "port", "scheme"), [(False, 80, "http"), (True, 443, "https")])
def test_the_schemes_own_port_may_be_left_out(tls, port, scheme):
    """On port 80, or 443 under TLS, Host and Origin without a port are ours too."""
    asked = request(host=("localhost",), origin=(f"{scheme}://localhost",))
    assert isinstance(access(port=port, tls=tls).check(asked), Allow)


def test_a_bound_address_is_answered_by_its_number():
    """An address that was asked for is one of the names answered to, brackets added where they belong."""
    assert "192.0.2.1:8080" in access(bind="192.0.2.1", tls=True).hosts
    assert "[2001:db8::1]:8080" in access(bind="2001:db8::1", tls=True).hosts
    assert not any(
        host.startswith(("0.0.0.0", "[::]", ":")) for host in access(bind="0.0.0.0", tls=True).hosts
    )


@pytest.mark.parametrize("token", ["", " ", "a b", "tok\n", "t\u00f6k", "t\x00k"])
def test_a_token_that_no_header_carries_is_refused(token):
    """An empty or unprintable token is refused for both roles, and never switches access off."""
    with pytest.raises(SettingsError):
        access(token=token)
    with pytest.raises(SettingsError):
        access(read_token=token)
    with pytest.raises(SettingsError):
        access(token=token, insecure_no_auth=True)


def test_the_read_token_differs_from_the_full_one():
    """One value for both roles is refused."""
    with pytest.raises(SettingsError, match="read token"):
        access(read_token=TOKEN)


def test_verify_token_gives_a_role_or_none_for_any_text():
    """Any text may be presented, lone surrogates too, and only the two tokens give a role."""
    assert access().verify_token(TOKEN) is Role.FULL
    assert access().verify_token(READ) is Role.READ
    for presented in ("", "x", "\ud800", "\u5de5\u623f", TOKEN + "\x00", TOKEN * 1000):
        assert access().verify_token(presented) is None
        assert access(read_token=None).verify_token(presented) is None


def test_tokens_are_not_shown():
    """The representation of the policy, which a log may show, holds no token."""
    assert TOKEN not in repr(access())
    assert READ not in repr(access())


def test_roles_cover_each_other_one_way():
    """Full covers everything, run covers running and reading, read covers reading."""
    covered = {(a, b) for a, b in itertools.product(Role, Role) if a.covers(b)}
    read, run, full = Role.READ, Role.RUN, Role.FULL
    assert covered == {(full, full), (full, run), (full, read), (run, run), (run, read), (read, read)}


def test_a_named_token_gives_its_role_and_its_name():
    """A token of its own is known by its hash alone, and by nothing that is like it."""
    named = {token_hash("n" * 43): Allow(Role.RUN, "agent:nightly")}
    policy = access(named=named)
    asked = request(authorization=("Bearer " + "n" * 43,))
    assert policy.check(asked) == Allow(Role.RUN, "agent:nightly")
    for wrong in ("n" * 42, token_hash("n" * 43), "N" * 43):
        assert code_of(policy.check(request(authorization=(f"Bearer {wrong}",)))) == "unauthorized"
    assert code_of(access().check(asked)) == "unauthorized"
    assert "n" * 43 not in repr(policy)


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "127.0.0.2", "::1", "[::1]"])
def test_loopback_addresses_are_known(address):
    """The names and numbers of this machine are loopback."""
    assert is_loopback(address)
