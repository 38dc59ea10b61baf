"""The page Dead letters with its two buttons, and the JSON API for the same data."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tornado import web
from tornado.httputil import url_concat

from midwatch.orchestration.errors import NotFound, UnreadableRecord
from midwatch.orchestration.protocol.letter_filter import LetterFilter
from midwatch.orchestration.protocol.reading import Listing
from midwatch.orchestration.store.letters import Entry
from midwatch.schemas.deadletter import DeadLetterRecord, PoisonRecord
from midwatch.workers.celery_app.poison import PoisonList
from midwatch.workers.flower import guard
from midwatch.workers.flower.page import Api, Page, now_ms, operations, run_query
from midwatch.workers.views.durations import parse_seconds
from midwatch.workers.views.unreadable import summarize_unreadable, unreadable_as_json

SHOWN_LETTERS = 200
SHOWN_POISON = 50

VERBS = ("replay", "discard")

NAMES = ("kind", "agent", "model", "tool", "downstream")


@dataclass(frozen=True)
class Query:
    """What the query string asks for: conditions on the letters, and where the page begins."""

    wanted: LetterFilter
    after: Entry | None
    given: dict[str, str]
    """The conditions as they were typed."""

    @classmethod
    def of(cls, handler: Any) -> Query:
        """Read the query string. Raises HTTPError 400 for an unknown kind, an age or a place that can't be read."""
        read = {name: handler.get_argument(name, "", escape=False).strip() for name in (*NAMES, "older", "after")}
        given = {name: value for name, value in read.items() if value and name != "after"}
        try:
            words = {name: given.get(name) for name in NAMES}
            wanted = LetterFilter.make(**words, older_s=parse_seconds(given["older"]) if "older" in given else 0.0)
            return cls(wanted, Entry.parse(read["after"]) if read["after"] else None, given)
        except ValueError as error:
            raise web.HTTPError(400, str(error)) from error


@dataclass(frozen=True)
class Letters:
    """The data of the page."""

    letters: list[DeadLetterRecord]
    in_all: int
    """Number of all letters, also of those that don't match."""
    next_place: str
    """Where the next page begins. Empty on the last page."""
    poison: list[PoisonRecord]
    at_ms: int
    unreadable: list[UnreadableRecord]


def read_letters(query: Query) -> Letters:
    """Read one page of dead letters, and the newest poison messages."""
    reader = operations().letters
    found: list[tuple[Entry, DeadLetterRecord]] = []
    unreadable: list[UnreadableRecord] = []
    for page in reader.pages(query.wanted, after=query.after):
        found += zip(page.entries, page, strict=True)
        unreadable += page.unreadable
        if len(found) > SHOWN_LETTERS:
            break
    shown = found[:SHOWN_LETTERS]
    next_place = str(shown[-1][0]) if len(found) > SHOWN_LETTERS else ""
    poison = operations().poison(SHOWN_POISON) if not query.given and query.after is None else Listing()
    unreadable += poison.unreadable
    return Letters([letter for _, letter in shown], reader.count(), next_place, poison, now_ms(), unreadable)


def is_poison(text: str) -> bool:
    """Is this the id of a poison message? It has no page."""
    return text.startswith("poison-")


def change(verb: str, job_id: str) -> bool:
    """Replay or discard a dead letter, or discard a poison message. Returns False if this was done before. Raises NotFound."""
    if verb == "discard" and is_poison(job_id):
        messages = PoisonList(operations().client, operations().keys.poison())
        if messages.discard(job_id):
            return True
        with suppress(NotFound):  # a producer may have given a job such an id
            return operations().discard(job_id)
        return False
    return operations().replay(job_id) if verb == "replay" else operations().discard(job_id)


class DeadLettersPage(Page):
    """Steps that will not be tried again, and messages that could not become steps."""

    @web.authenticated
    async def get(self) -> None:
        """Show the page. `?kind=`, `?agent=` and so on filter it. `?done=` and `?late=` name the job of a pressed button."""
        done, late = (self.get_argument(name, "", escape=False) for name in ("done", "late"))
        query = Query.of(self)
        shown = await run_query(read_letters, query)
        unreadable = summarize_unreadable(shown.unreadable)
        older_page = url_concat(self.reverse_url("midwatch_dead_letters"), {**query.given, "after": shown.next_place})
        self.show(
            "dead_letters.html", shown=shown, unreadable=unreadable, done=done, late=late, given=query.given,
            is_poison=is_poison, names=(*NAMES, "older"), older_page=older_page if shown.next_place else "",
        )  # fmt: skip


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
        """Return the data of the page. `?after=` with the `next` of one page returns the next one."""
        shown = await run_query(read_letters, Query.of(self))
        letters, poison = ([each.model_dump(mode="json") for each in kind] for kind in (shown.letters, shown.poison))
        self.write(
            {
                "now_ms": shown.at_ms,
                "in_all": shown.in_all,
                "next": shown.next_place or None,
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
