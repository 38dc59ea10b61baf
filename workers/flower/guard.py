"""Who may look and who may change: Flower without a login is for this machine alone, and so are its buttons."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from tornado import web

from midwatch.orchestration.errors import ConfigError

UNPROTECTED = "unprotected"
"""Our option beside Flower's own: somebody else, for example a proxy with a login, keeps strangers out."""


def has_login(options: Any) -> bool:
    """Is a login configured?"""
    return bool(options.basic_auth or options.auth)


def is_local(options: Any) -> bool:
    """Can only this machine reach it? No address at all means all of them."""
    return bool(options.unix_socket) or is_loopback(options.address)


def is_loopback(host: str) -> bool:
    """Is it a name or an address of this machine, for this machine?"""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def forced_open(options: Any) -> bool:
    """Did the operator say that something else protects it?"""
    return bool(getattr(options, UNPROTECTED, False))


def refuse_open(options: Any) -> None:
    """Refuse to show jobs to the network without a login.

    Raises:
        ConfigError: says which options are missing.

    """
    if has_login(options) or is_local(options) or forced_open(options):
        return
    where = f"{options.address!r}" if options.address else "every address of this machine"
    raise ConfigError(
        f"Flower on {where} without a login would show jobs, and buttons that change them, to the network. Expected "
        "--basic_auth=USER:PASSWORD or --auth=..., or the address 127.0.0.1; where a proxy in front asks for a login, "
        f"say so with --{UNPROTECTED}"
    )


def check_reader(handler: Any) -> None:
    """Without a login, answer only to this machine's own names.

    A page of another site can have its name point to 127.0.0.1 and so read what is meant for this machine; the name it
    asked for gives it away.

    Raises:
        HTTPError: 403.

    """
    options = handler.application.options
    if has_login(options) or forced_open(options) or is_loopback(handler.request.host_name):
        return
    raise web.HTTPError(
        403,
        f"without a login these pages answer to 127.0.0.1 and localhost only, and {handler.request.host_name!r} "
        f"was asked for; configure --basic_auth, or --{UNPROTECTED} behind a proxy with a login",
    )


def check_changer(handler: Any) -> None:
    """May this request change anything?

    Raises:
        HTTPError: 403 under `--read_only`, and where anybody on the network could press the button.

    """
    options = handler.application.options
    if options.read_only:
        raise web.HTTPError(403, "this Flower runs with --read_only; use `midwatch dlq`, or a Flower without it")
    if not (has_login(options) or is_local(options) or forced_open(options)):
        raise web.HTTPError(403, "changes need a login (--basic_auth or --auth), or Flower on 127.0.0.1")


def check_same_site(handler: Any) -> None:
    """Refuse what another site's page sends, also without a login, where Flower itself does not look.

    Raises:
        HTTPError: 403.

    """
    headers = handler.request.headers
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    foreign = site != "same-origin" if site else origin and urlsplit(origin).netloc != handler.request.host
    if foreign:
        raise web.HTTPError(403, f"a page of another site sent this ({site or origin}); open Flower itself")
