"""Install the pages in Flower's process before Flower is built. `midwatch flower` or a `flowerconfig.py` calls this."""

from __future__ import annotations

from typing import Any

from flower import urls
from flower.views import BaseHandler
from tornado.web import url

from midwatch.workers.flower.deadletters import DeadLetterButton, DeadLettersApi, DeadLettersPage, DeadLetterVerb
from midwatch.workers.flower.jobs import JobApi, JobPage, JobsApi, JobsPage
from midwatch.workers.flower.template_loader import PageLoader

TABS = (("Jobs", "midwatch_jobs"), ("Dead letters", "midwatch_dead_letters"))
"""Tabs of the navigation: title, name of the page. A new page needs a line here, a handler below and a template."""

_JOB = r"([^/?]+)"
_VERB = r"(replay|discard)"

HANDLERS = [
    url(r"/jobs", JobsPage, name="midwatch_jobs"),
    url(rf"/jobs/{_JOB}", JobPage, name="midwatch_job"),
    url(r"/dead-letters", DeadLettersPage, name="midwatch_dead_letters"),
    url(rf"/dead-letters/{_JOB}/{_VERB}", DeadLetterButton, name="midwatch_dead_letter"),
    url(r"/api/midwatch/jobs", JobsApi),
    url(rf"/api/midwatch/jobs/{_JOB}", JobApi),
    url(r"/api/midwatch/dead-letters", DeadLettersApi),
    url(rf"/api/midwatch/dead-letters/{_JOB}/{_VERB}", DeadLetterVerb),
]


def install() -> None:
    """Add pages, tabs, templates, and the queues that have no consumer. A second call does nothing."""
    if any(handler in urls.handlers for handler in HANDLERS):
        return
    urls.handlers[-1:-1] = HANDLERS  # before Flower's last handler, which matches every path
    urls.settings["template_loader"] = PageLoader(urls.settings["template_path"])
    urls.settings["midwatch_tabs"] = TABS
    BaseHandler.get_active_queue_names = with_configured_queues(BaseHandler.get_active_queue_names)


def with_configured_queues(consumed: Any) -> Any:
    """Wrap Flower's list of queues, so that it has all configured queues.

    Flower lists only queues that a worker consumes. Without workers, a queue that fills up would not be shown.
    """

    def get_active_queue_names(handler: Any) -> list[str]:
        configured = {queue.name for queue in handler.capp.conf.task_queues or ()}
        return sorted({*consumed(handler), *configured})

    return get_active_queue_names
