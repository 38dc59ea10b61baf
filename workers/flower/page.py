"""What every page and every answer of the API does: look who asks, ask Redis in a thread, say what went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache, partial
from typing import Any, ParamSpec, TypeVar

from flower.api import BaseApiHandler
from flower.views import BaseHandler
from tornado import web

from midwatch.orchestration.errors import MidwatchError, NotFound, Refused, StoreUnavailable
from midwatch.orchestration.store.operations import Operations
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.flower import guard
from midwatch.workers.settings import settings
from midwatch.workers.views.job_state import cut, describe_failure, describe_state
from midwatch.workers.views.output import count, duration

P = ParamSpec("P")
T = TypeVar("T")

CODES = {NotFound: 404, Refused: 409, StoreUnavailable: 503}

TEMPLATE_FUNCTIONS: dict[str, Callable[..., object]] = {
    "count": count,
    "cut": cut,
    "describe_failure": describe_failure,
    "describe_state": describe_state,
    "duration": duration,
}


@cache
def operations() -> Operations:
    """The fleet that these pages are about. Thread-safe."""
    return make_client(settings()).operations


async def ask(query: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a query in a thread: the event loop belongs to everybody's pages.

    Raises:
        HTTPError: 404, 409 or 503, with the error's own words.

    """
    try:
        return await asyncio.get_running_loop().run_in_executor(None, partial(query, *args, **kwargs))
    except MidwatchError as error:
        code = next((code for kind, code in CODES.items() if isinstance(error, kind)), 500)
        raise web.HTTPError(code, str(error)) from error


def now_ms() -> int:
    """The server's time: ages and waits are told by the clock that decides them."""
    seconds, micros = operations().client.time()
    return int(seconds) * 1000 + int(micros) // 1000


class Page(BaseHandler):  # type: ignore[misc]
    """A page. Changes come from its own forms only: the form's token is asked for whatever login there is."""

    def set_default_headers(self) -> None:
        """Not to be kept by a proxy, not to be framed by a page that lays its own button over ours."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", "frame-ancestors 'self'")

    def prepare(self) -> None:
        """Before any method."""
        guard.check_reader(self)

    def check_xsrf_cookie(self) -> None:
        """Before any method that changes."""
        guard.check_same_site(self)
        web.RequestHandler.check_xsrf_cookie(self)

    def show(self, template: str, **values: Any) -> None:
        """Render a template of ours."""
        self.render(template, **TEMPLATE_FUNCTIONS, read_only=self.application.options.read_only, **values)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what went wrong, in the page's own frame."""
        error = kwargs.get("exc_info", (None, None))[1]
        if status_code in (400, 409, 503) and isinstance(error, web.HTTPError):
            self.render("404.html", message=error.get_message())
        else:
            super().write_error(status_code, **kwargs)


class Api(BaseApiHandler):  # type: ignore[misc]
    """A page's twin in JSON, with the login that Flower's API demands."""

    def prepare(self) -> None:
        """Before any method."""
        super().prepare()
        guard.check_reader(self)

    def check_xsrf_cookie(self) -> None:
        """Before any method that changes. A client that logs in with a header has no cookie; a browser's page has."""
        guard.check_same_site(self)
        if not (guard.has_login(self.application.options) and self.request.headers.get("Authorization")):
            web.RequestHandler.check_xsrf_cookie(self)
