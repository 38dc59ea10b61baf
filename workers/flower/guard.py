"""Access control: who may read and who may change. Without a login, Flower and its buttons work on this machine only."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from tornado import web

from midwatch.orchestration.errors import ConfigError

UNPROTECTED = "unprotected"
"""Name of an extra option. It says that something else protects Flower, for example a proxy with a login."""


def has_login(options: Any) -> bool:
    """Is a login configured?"""
    return bool(options.basic_auth or options.auth)


def is_local(options: Any) -> bool:
    """Can only this machine reach Flower? An empty address means all addresses."""
    return bool(options.unix_socket) or is_loopback(options.address)


def is_loopback(host: str) -> bool:
    """Is it a loopback name or address?"""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_protected_elsewhere(options: Any) -> bool:
    """Did the operator say that something else protects Flower?"""
    return bool(getattr(options, UNPROTECTED, False))


def refuse_open(options: Any) -> None:
    """Refuse to show jobs to the network without a login.

    Raises:
        ConfigError: names the missing options.

    """
    if has_login(options) or is_local(options) or is_protected_elsewhere(options):
        return
    where = f"{options.address!r}" if options.address else "every address of this machine"
    raise ConfigError(
        f"Flower on {where} without a login would show jobs, and buttons that change them, to the network. Expected "
        "--basic_auth=USER:PASSWORD or --auth=..., or the address 127.0.0.1. If a proxy in front requires a login, "
        f"add --{UNPROTECTED}"
    )


def check_reader(handler: Any) -> None:
    """Without a login, answer only requests for a loopback name.

    Another site can let its name point to 127.0.0.1, so that its page in the user's browser reads these pages (DNS
    rebinding). The host name in the request reveals this.

    Raises:
        HTTPError: 403.

    """
    options = handler.application.options
    if has_login(options) or is_protected_elsewhere(options) or is_loopback(handler.request.host_name):
        return
    raise web.HTTPError(
        403,
        f"without a login these pages answer on 127.0.0.1 and localhost only, not on {handler.request.host_name!r}; "
        f"configure --basic_auth, or --{UNPROTECTED} behind a proxy with a login",
    )


def check_changer(handler: Any) -> None:
    """May this request change anything?

    Raises:
        HTTPError: 403 with `--read_only`, and if anyone on the network could press the button.

    """
    options = handler.application.options
    if options.read_only:
        raise web.HTTPError(403, "this Flower runs with --read_only; use `midwatch dlq`, or a Flower without it")
    if not (has_login(options) or is_local(options) or is_protected_elsewhere(options)):
        raise web.HTTPError(403, "changes need a login (--basic_auth or --auth), or Flower on 127.0.0.1")


def check_same_site(handler: Any) -> None:
    """Refuse requests from another site's page. Flower checks this only with a login.

    Raises:
        HTTPError: 403.

    """
    headers = handler.request.headers
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    foreign = site != "same-origin" if site else origin and urlsplit(origin).netloc != handler.request.host
    if foreign:
        raise web.HTTPError(403, f"a page of another site sent this request ({site or origin}); use Flower's own pages")
