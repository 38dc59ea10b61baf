"""One model call, top to bottom: understand it, decide whether it goes wrong, ask the brain, answer, note it down."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
import traceback
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tornado.httputil import HTTPServerRequest

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import Stop, Usage
from midwatch.workers.simulator.brains.brain import Answer, Brain, Call, Conversation, UnexpectedCall, Use
from midwatch.workers.simulator.delivery import WEB_PAGE, HttpAnswer, deliver
from midwatch.workers.simulator.faults import ALTERING, MISREPORTING, REFUSING, SPOILING, Fault, Faults, chance
from midwatch.workers.simulator.journal import Entry, Journal
from midwatch.workers.simulator.metering import Meter, spoken
from midwatch.workers.simulator.ratelimit import RateLimit
from midwatch.workers.simulator.spoil import exhausted, spoil
from midwatch.workers.simulator.vendor_formats.jsontext import dump, encoded
from midwatch.workers.simulator.vendor_formats.reading import read
from midwatch.workers.simulator.vendor_formats.vendor_format import (
    BadRequest,
    Prompt,
    Refusal,
    RefusalKind,
    Reply,
    Wire,
)

REMEMBERED_TURNS = 200_000
USUAL_WINDOW_TOKENS = 200_000
"""What an overflow on demand names as the limit, when the prompt is larger than that."""


@dataclass(slots=True)
class Tries:
    """What was asked and faulted of one turn of one conversation."""

    attempts: int = 0
    faulted: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be sent, when and how, and what the journal says of it."""

    answer: HttpAnswer
    conversation: str = ""
    turn: int = 0
    attempt: int = 0
    fault: Fault | None = None
    delay_ms: float = 0
    usage: Usage | None = None
    unexpected: bool = False


class ModelCalls:
    """Answers model calls. Used by one event loop; `faults` may be replaced at any time."""

    def __init__(self, brain: Brain, journal: Journal, faults: Faults, latency_ms: tuple[int, int]) -> None:
        self.brain = brain
        self.meter = Meter()
        self._journal = journal
        self._latency_ms = latency_ms
        self._tries: OrderedDict[tuple[str, int], Tries] = OrderedDict()
        self.use(faults)

    def use(self, faults: Faults) -> None:
        """From the next request on, these faults. A limit begins with a full bucket."""
        self._set_s = time.monotonic()
        self._limit = RateLimit(faults, self._set_s)
        self.faults = faults

    async def handle(self, request: HTTPServerRequest, wire: Wire) -> None:
        """Answer one request, and write its entry whatever becomes of it."""
        arrived_s, t_ms = time.monotonic(), int(time.time() * 1000)
        n = self._journal.arrived(wire.name)
        plan, noted = Plan(WEB_PAGE), False

        def note(status: int) -> None:
            nonlocal noted
            if noted:
                return
            noted = True
            entry = Entry(
                n=n,
                t_ms=t_ms,
                wire=wire.name,
                conversation=plan.conversation,
                turn=plan.turn,
                attempt=plan.attempt,
                body_sha256=hashlib.sha256(request.body).hexdigest(),
                status=status,
                fault=plan.fault,
                latency_ms=round((time.monotonic() - arrived_s) * 1000),
                usage=plan.usage if status == 200 else None,
            )
            self._journal.over(entry, unexpected=plan.unexpected)

        try:
            plan = self._plan(n, wire, request.body)
            if plan.delay_ms:
                await asyncio.sleep(plan.delay_ms / 1000)
            await deliver(request, plan.answer, plan.fault, self.faults, note)
        finally:
            note(0)

    def _plan(self, n: int, wire: Wire, body: bytes) -> Plan:
        try:
            prompt = read(wire, body)
        except BadRequest as problem:
            return Plan(self._refusal(n, wire, Refusal(RefusalKind.INVALID_REQUEST, str(problem))))
        key, turn = prompt.conversation.key, prompt.conversation.turn
        if plan := self._shut(n, wire, prompt):
            return replace(plan, conversation=key, turn=turn)
        tries = self._tried(key, turn)
        fault = self.faults.scripted(n, turn, tries.attempts) or self.faults.drawn(
            key, turn, tries.attempts, tries.faulted
        )
        plan = self._answered(n, wire, prompt, fault, tries.attempts)
        tries.faulted += plan.fault is not None
        return plan

    def _shut(self, n: int, wire: Wire, prompt: Prompt) -> Plan | None:
        """The plan for a request that is not looked at: there is an outage, or a limit is reached."""
        now_s, outage = time.monotonic(), self.faults.outage
        left_s = self.faults.outage_left_s(now_s - self._set_s)
        if outage and left_s:
            refusal = self._refused(prompt.conversation, outage) if outage in REFUSING else None
            if refusal and refusal.kind is RefusalKind.RATE_LIMITED:
                refusal = replace(refusal, retry_after_s=math.ceil(left_s))
            return Plan(self._refusal(n, wire, refusal) if refusal else WEB_PAGE, fault=outage)
        read = self.meter.read(prompt, remember=False) if self._limit.counts_tokens else Usage()
        short = self._limit.admit(
            now_s,
            fresh=read.input_tokens - read.cached_tokens,
            read=read.input_tokens,
            at_most=prompt.conversation.max_output_tokens or 0,
        )
        return Plan(self._refusal(n, wire, short.refusal(prompt.conversation.model))) if short else None

    def _tried(self, key: str, turn: int) -> Tries:
        """The record of this turn, with this attempt counted. The oldest are forgotten when there are too many."""
        tries = self._tries.setdefault((key, turn), Tries())
        tries.attempts += 1
        if len(self._tries) > REMEMBERED_TURNS:
            self._tries.popitem(last=False)
        return tries

    def _answered(self, n: int, wire: Wire, prompt: Prompt, fault: Fault | None, attempt: int) -> Plan:
        """The plan for a request that passed the rate limit: refused, odd, or as the brain says."""
        conversation = prompt.conversation
        plan = Plan(WEB_PAGE, conversation.key, conversation.turn, attempt, fault)
        refusal = self._refused(conversation, fault)
        if refusal:
            return replace(plan, answer=self._refusal(n, wire, refusal), fault=fault if fault in REFUSING else None)
        try:
            reply = self._reply(wire, prompt, self.brain.answer(conversation))
        except Exception as error:  # a user's brain may have bugs: say where, and go on serving
            unexpected = Refusal(RefusalKind.UNEXPECTED, _excuse(self.brain, error))
            return replace(plan, answer=self._refusal(n, wire, unexpected), fault=None, unexpected=True)
        usage = reply.usage
        if fault in ALTERING:
            spoiled = self._spoiled(fault, reply, conversation)
            fault, reply = (fault, spoiled) if spoiled else (None, reply)
            usage = usage if fault in MISREPORTING else reply.usage
        self._limit.wrote(usage.output_tokens if usage else 0)
        http = WEB_PAGE if fault is Fault.HTML else self._http(n, wire, 200, wire.reply(reply, int(time.time())))
        return replace(plan, answer=http, fault=fault, usage=usage, delay_ms=self._delay_ms(plan, fault))

    def _refused(self, conversation: Conversation, fault: Fault | None) -> Refusal | None:
        """The refusal that a fault or the context window asks for."""
        window = self.faults.context_window_tokens
        if fault in REFUSING:
            kind = RefusalKind(fault)
        elif window is not None and self.meter.count(conversation) > window:
            kind = RefusalKind.CONTEXT_OVERFLOW
        else:
            return None
        if kind is RefusalKind.RATE_LIMITED:
            limit = self.faults.requests_per_minute or 60
            return Refusal(kind, model=conversation.model, limit=limit, retry_after_s=self.faults.retry_after_s)
        if kind is RefusalKind.OVERLOADED:
            return Refusal(kind, model=conversation.model, retry_after_s=self.faults.overloaded_retry_after_s)
        tokens = self.meter.count(conversation) if kind is RefusalKind.CONTEXT_OVERFLOW else 0
        limit = window or max(1, min(USUAL_WINDOW_TOKENS, tokens - 1))
        return Refusal(kind, model=conversation.model, tokens=tokens, limit=limit)

    def _reply(self, wire: Wire, prompt: Prompt, answer: Answer) -> Reply:
        conversation = prompt.conversation
        seed = f"{conversation.key}_{conversation.turn}"
        calls: tuple[Call, ...] = ()
        if isinstance(answer, Use):
            ids = answer.ids or [f"{wire.call_prefix}{seed}_{ordinal}" for ordinal in range(len(answer.calls))]
            raw = [(name, said if isinstance(said, str) else dump(said)) for name, said in answer.calls]
            calls = tuple(Call(call_id, *call) for call_id, call in zip(ids, raw, strict=True))
        output_tokens = spoken(answer.text, ((call.name, call.arguments) for call in calls))
        usage: Usage | None = self.meter.read(prompt).model_copy(update={"output_tokens": output_tokens})
        if answer.stop is Stop.LENGTH:
            usage = exhausted(usage, conversation)
        return Reply(seed, self.faults.answers_as or conversation.model, answer.text, calls, answer.stop, usage)

    def _spoiled(self, fault: Fault, reply: Reply, conversation: Conversation) -> Reply | None:
        """The reply as the fault leaves it; None when the fault does not apply to it."""
        # Calls that run beside a spoiled one would run twice, because by position the whole turn is answered again.
        safe = not self.brain.positional or (self.faults.spoil_positional and len(reply.calls) == 1)
        if fault in SPOILING and not safe:
            return None
        return spoil(fault, reply, conversation, self.faults.seed)

    def _delay_ms(self, plan: Plan, fault: Fault | None) -> float:
        low, high = self._latency_ms
        luck = chance(self.faults.seed, plan.conversation, plan.turn, plan.attempt, "latency")
        return low + (high - low) * luck + (self.faults.slow_ms if fault is Fault.SLOW else 0)

    def _refusal(self, n: int, wire: Wire, refusal: Refusal) -> HttpAnswer:
        status, body = wire.refuse(refusal, _request_id(n))
        answer = self._http(n, wire, status, body)
        if refusal.retry_after_s is not None:
            answer.headers["retry-after"] = f"{refusal.retry_after_s:g}"
        if refusal.kind is RefusalKind.UNEXPECTED:
            answer.headers["x-should-retry"] = "false"
        return answer

    def _http(self, n: int, wire: Wire, status: int, body: JsonObject) -> HttpAnswer:
        states = self._limit.states()
        requests = states.pop("requests", None)
        return HttpAnswer(
            status, wire.headers(_request_id(n), requests, datetime.now(UTC), states.values()), encoded(body)
        )


def _request_id(n: int) -> str:
    """The request id tells the journal's entry."""
    return f"req_{n:08d}"


def _excuse(brain: Brain, error: Exception) -> str:
    """Why there is no answer. Of an error nobody meant, only its name and place: its text may hold the prompt."""
    if isinstance(error, UnexpectedCall):
        return str(error)
    line = traceback.extract_tb(error.__traceback__)[-1]
    return f"{brain.name} raised {type(error).__name__} at {line.filename}:{line.lineno}"
