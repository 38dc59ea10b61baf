"""The page Dead letters with its two buttons, and its twins in JSON."""

from __future__ import annotations

from dataclasses import dataclass

from tornado import web
from tornado.httputil import url_concat

from midwatch.schemas.deadletter import DeadLetterRecord, PoisonRecord
from midwatch.workers.flower import guard
from midwatch.workers.flower.page import Api, Page, ask, now_ms, operations

SHOWN_LETTERS = 200
SHOWN_POISON = 50

VERBS = ("replay", "discard")


@dataclass(frozen=True)
class Letters:
    """What the page shows."""

    letters: list[DeadLetterRecord]
    in_all: int
    poison: list[PoisonRecord]
    at_ms: int


def listing() -> Letters:
    """The newest dead letters and poison messages."""
    letters = operations().dead_letters()
    return Letters(letters[:SHOWN_LETTERS], len(letters), operations().poison(SHOWN_POISON), now_ms())


def change(verb: str, job_id: str) -> bool:
    """Replay or discard. False: somebody did before. Raises NotFound."""
    return operations().replay(job_id) if verb == "replay" else operations().discard(job_id)


class DeadLettersPage(Page):
    """Steps that will not be tried again, and messages that could not become steps."""

    @web.authenticated
    async def get(self) -> None:
        """`?done=` and `?late=` name the job that a button was pressed for."""
        done, late = (self.get_argument(name, "", escape=False) for name in ("done", "late"))
        self.show("dead_letters.html", shown=await ask(listing), done=done, late=late)


class DeadLetterButton(Page):
    """Replay and Discard."""

    @web.authenticated
    async def post(self, job_id: str, verb: str) -> None:
        """Back to the list, which says whether it was done."""
        guard.check_changer(self)
        done = await ask(change, verb, job_id)
        self.redirect(
            url_concat(self.reverse_url("midwatch_dead_letters"), {"done" if done else "late": job_id}), status=303
        )


class DeadLettersApi(Api):
    """The same as JSON."""

    @web.authenticated
    async def get(self) -> None:
        """All that the page shows."""
        shown = await ask(listing)
        letters, poison = ([each.model_dump(mode="json") for each in kind] for kind in (shown.letters, shown.poison))
        self.write({"now_ms": shown.at_ms, "in_all": shown.in_all, "dead_letters": letters, "poison": poison})


class DeadLetterVerb(Api):
    """Replay and Discard for programs."""

    @web.authenticated
    async def post(self, job_id: str, verb: str) -> None:
        """`done` is false when somebody did it before: a second time is a no-op."""
        guard.check_changer(self)
        self.write({"job_id": job_id, "verb": verb, "done": await ask(change, verb, job_id)})
