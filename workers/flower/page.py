"""The base classes of pages and API: check access, query Redis in a thread, and show errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache, partial
from typing import Any, ParamSpec, TypeVar

from flower.api import BaseApiHandler
from flower.views import BaseHandler
from tornado import web

from midwatch.orchestration.errors import MidwatchError, NotFound, Refused, StoreUnavailable, UnreadableRecord
from midwatch.orchestration.store.operations import Operations
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.flower import guard
from midwatch.workers.settings import settings
from midwatch.workers.views.job_state import cut, describe_failure, describe_state
from midwatch.workers.views.output import count, duration, shorten_ids

P = ParamSpec("P")
T = TypeVar("T")

CODES = {NotFound: 404, Refused: 409, UnreadableRecord: 422, StoreUnavailable: 503}

TEMPLATE_FUNCTIONS: dict[str, Callable[..., object]] = {
    "count": count,
    "cut": cut,
    "describe_failure": describe_failure,
    "describe_state": describe_state,
    "duration": duration,
    "shorten_ids": shorten_ids,
}


@cache
def operations() -> Operations:
    """Return the operations of the fleet that these pages show. Thread-safe."""
    return make_client(settings()).operations


async def run_query(query: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a query in a thread, so that it does not block the event loop of all pages.

    Raises:
        HTTPError: 404, 409, 422 (a record that this release can't read) or 503, with the error's message.

    """
    try:
        return await asyncio.get_running_loop().run_in_executor(None, partial(query, *args, **kwargs))
    except MidwatchError as error:
        code = next((code for kind, code in CODES.items() if isinstance(error, kind)), 500)
        raise web.HTTPError(code, str(error)) from error


def now_ms() -> int:
    """Return the server's time. Ages and waits are computed from it, because the server's clock decides when a wait ends."""
    seconds, micros = operations().client.time()
    return int(seconds) * 1000 + int(micros) // 1000


class Page(BaseHandler):  # type: ignore[misc]
    """A page. Changes need the form's token, with every kind of login, so they come from Flower's own forms only."""

    def set_default_headers(self) -> None:
        """Forbid caching by proxies and framing by other sites, which could lay a button over the page's button."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", "frame-ancestors 'self'")

    def prepare(self) -> None:
        """Check access before every request."""
        guard.check_reader(self)

    def check_xsrf_cookie(self) -> None:
        """Check the form's token before every request that changes something."""
        guard.check_same_site(self)
        web.RequestHandler.check_xsrf_cookie(self)

    def show(self, template: str, **values: Any) -> None:
        """Render a template of this package."""
        self.render(template, **TEMPLATE_FUNCTIONS, read_only=self.application.options.read_only, **values)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Show the error in the layout of the page."""
        error = kwargs.get("exc_info", (None, None))[1]
        if status_code in (400, 409, 422, 503) and isinstance(error, web.HTTPError):
            self.render("404.html", message=error.get_message())
        else:
            super().write_error(status_code, **kwargs)


class Api(BaseApiHandler):  # type: ignore[misc]
    """A handler of the JSON API. It requires the login of Flower's API."""

    def prepare(self) -> None:
        """Check access before every request."""
        super().prepare()
        guard.check_reader(self)

    def check_xsrf_cookie(self) -> None:
        """Check the token before every change. A client that logs in with a header has no cookie and needs no token."""
        guard.check_same_site(self)
        if not (guard.has_login(self.application.options) and self.request.headers.get("Authorization")):
            web.RequestHandler.check_xsrf_cookie(self)
