"""The page Dead letters with its two buttons, and the JSON API for the same data."""

from __future__ import annotations

from dataclasses import dataclass

from tornado import web
from tornado.httputil import url_concat

from midwatch.orchestration.errors import UnreadableRecord
from midwatch.schemas.deadletter import DeadLetterRecord, PoisonRecord
from midwatch.workers.flower import guard
from midwatch.workers.flower.page import Api, Page, now_ms, operations, run_query
from midwatch.workers.views.unreadable import summarize_unreadable, unreadable_as_json

SHOWN_LETTERS = 200
SHOWN_POISON = 50

VERBS = ("replay", "discard")


@dataclass(frozen=True)
class Letters:
    """The data of the page."""

    letters: list[DeadLetterRecord]
    in_all: int
    poison: list[PoisonRecord]
    at_ms: int
    unreadable: list[UnreadableRecord]


def read_letters() -> Letters:
    """Read the newest dead letters and poison messages."""
    letters, poison = operations().dead_letters(), operations().poison(SHOWN_POISON)
    unreadable = [*letters.unreadable, *poison.unreadable]
    return Letters(letters[:SHOWN_LETTERS], len(letters), poison, now_ms(), unreadable)


def change(verb: str, job_id: str) -> bool:
    """Replay or discard a dead letter. Returns False if this was done before. Raises NotFound."""
    return operations().replay(job_id) if verb == "replay" else operations().discard(job_id)


class DeadLettersPage(Page):
    """Steps that will not be tried again, and messages that could not become steps."""

    @web.authenticated
    async def get(self) -> None:
        """Show the page. `?done=` and `?late=` name the job whose button was pressed."""
        done, late = (self.get_argument(name, "", escape=False) for name in ("done", "late"))
        shown = await run_query(read_letters)
        unreadable = summarize_unreadable(shown.unreadable)
        self.show("dead_letters.html", shown=shown, unreadable=unreadable, done=done, late=late)


class DeadLetterButton(Page):
    """The buttons Replay and Discard."""

    @web.authenticated
    async def post(self, job_id: str, verb: str) -> None:
        """Change the dead letter, then show the page with the result."""
        guard.check_changer(self)
        done = await run_query(change, verb, job_id)
        self.redirect(
            url_concat(self.reverse_url("midwatch_dead_letters"), {"done" if done else "late": job_id}), status=303
        )


class DeadLettersApi(Api):
    """Dead letters and poison messages, as JSON."""

    @web.authenticated
    async def get(self) -> None:
        """Return the data of the page."""
        shown = await run_query(read_letters)
        letters, poison = ([each.model_dump(mode="json") for each in kind] for kind in (shown.letters, shown.poison))
        self.write(
            {
                "now_ms": shown.at_ms,
                "in_all": shown.in_all,
                "dead_letters": letters,
                "poison": poison,
                **unreadable_as_json(shown.unreadable),
            }
        )


class DeadLetterVerb(Api):
    """Replay and discard for programs."""

    @web.authenticated
    async def post(self, job_id: str, verb: str) -> None:
        """Change the dead letter. `done` is false if this was done before."""
        guard.check_changer(self)
        self.write({"job_id": job_id, "verb": verb, "done": await run_query(change, verb, job_id)})
