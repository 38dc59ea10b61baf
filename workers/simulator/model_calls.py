"""Handles one model call: parse the request, choose a fault, call the brain, answer, and record it in the journal."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
import traceback
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tornado.httputil import HTTPServerRequest

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import Stop, Usage
from midwatch.workers.simulator.brains.brain import Answer, Brain, Conversation, SimulatedCall, UnexpectedCall, Use
from midwatch.workers.simulator.delivery import PAGES, WEB_PAGE, HttpAnswer, deliver
from midwatch.workers.simulator.faults.faults import ALTERING, MISREPORTING, REFUSING, SPOILING, Fault, Faults, chance
from midwatch.workers.simulator.faults.refusals import find_refusal
from midwatch.workers.simulator.faults.spoiled_replies import spoil, use_up_tokens
from midwatch.workers.simulator.journal import Entry, Journal
from midwatch.workers.simulator.metering import Meter, count_output_tokens
from midwatch.workers.simulator.rate_limit import RateLimit
from midwatch.workers.simulator.turn_attempts import AttemptCounts
from midwatch.workers.simulator.vendor_formats.compact_json import dump_json, encode_json
from midwatch.workers.simulator.vendor_formats.request_parsing import parse_request
from midwatch.workers.simulator.vendor_formats.vendor_format import (
    BadRequest,
    Prompt,
    Refusal,
    RefusalKind,
    Reply,
    SimulatedFormat,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer to send, its delay and its fault, and the data for the journal."""

    answer: HttpAnswer
    conversation: str = ""
    turn: int = 0
    attempt: int = 0
    fault: Fault | None = None
    delay_ms: float = 0
    usage: Usage | None = None
    unexpected: bool = False


class ModelCalls:
    """Answers model calls in one event loop. `use` can replace the faults at any time."""

    def __init__(self, brain: Brain, journal: Journal, faults: Faults, latency_ms: tuple[int, int]) -> None:
        self.brain = brain
        self.meter = Meter()
        self._journal = journal
        self._latency_ms = latency_ms
        self._attempts = AttemptCounts()
        self.use(faults)

    def use(self, faults: Faults) -> None:
        """Use these faults from the next request on. Each limit starts with a full bucket."""
        self._set_s = time.monotonic()
        self._limit = RateLimit(faults, self._set_s)
        self.faults = faults

    async def handle(self, request: HTTPServerRequest, vendor_format: SimulatedFormat) -> None:
        """Answer one request, and always write its journal entry."""
        arrived_s, t_ms = time.monotonic(), int(time.time() * 1000)
        number = self._journal.record_arrival(vendor_format.name)
        plan, recorded = Plan(WEB_PAGE), False

        def record_status(status: int) -> None:
            nonlocal recorded
            if recorded:
                return
            recorded = True
            entry = Entry(
                n=number,
                t_ms=t_ms,
                wire=vendor_format.name,
                conversation=plan.conversation,
                turn=plan.turn,
                attempt=plan.attempt,
                body_sha256=hashlib.sha256(request.body).hexdigest(),
                status=status,
                fault=plan.fault,
                latency_ms=round((time.monotonic() - arrived_s) * 1000),
                usage=plan.usage if status == 200 else None,
            )
            self._journal.record_end(entry, unexpected=plan.unexpected)

        try:
            plan = self._make_plan(number, vendor_format, request.body)
            if plan.delay_ms:
                await asyncio.sleep(plan.delay_ms / 1000)
            await deliver(request, plan.answer, plan.fault, self.faults, record_status)
        finally:
            record_status(0)

    def _make_plan(self, number: int, vendor_format: SimulatedFormat, body: bytes) -> Plan:
        try:
            prompt = parse_request(vendor_format, body)
        except BadRequest as problem:
            return Plan(self._write_refusal(number, vendor_format, Refusal(RefusalKind.INVALID_REQUEST, str(problem))))
        key, turn = prompt.conversation.key, prompt.conversation.turn
        if plan := self._plan_outage_or_limit(number, vendor_format, prompt):
            return replace(plan, conversation=key, turn=turn)
        attempts = self._attempts.count(key, turn)
        fault = self.faults.find_scripted(number, turn, attempts.count) or self.faults.draw(
            key, turn, attempts.count, attempts.faulted
        )
        plan = self._plan_answer(number, vendor_format, prompt, fault, attempts.count)
        attempts.faulted += plan.fault is not None
        return plan

    def _plan_outage_or_limit(self, number: int, vendor_format: SimulatedFormat, prompt: Prompt) -> Plan | None:
        """Plan a refusal if there is an outage or a limit is reached; else return None."""
        now_s, outage = time.monotonic(), self.faults.outage
        left_s = self.faults.outage_left_s(now_s - self._set_s)
        if outage and left_s:
            refusal = find_refusal(self.faults, outage, prompt.conversation, self.meter) if outage in REFUSING else None
            if refusal and refusal.kind is RefusalKind.RATE_LIMITED:
                refusal = replace(refusal, retry_after_s=math.ceil(left_s))
            answer = self._write_refusal(number, vendor_format, refusal) if refusal else PAGES.get(outage, WEB_PAGE)
            if outage is Fault.ERROR_IN_200:
                answer = self._write_error_in_200(number, vendor_format)
            return Plan(answer, fault=outage)
        input_usage = self.meter.read(prompt, remember=False) if self._limit.counts_tokens else Usage()
        reached = self._limit.admit(
            now_s,
            fresh=input_usage.input_tokens - input_usage.cached_tokens,
            read=input_usage.input_tokens,
            at_most=prompt.conversation.max_output_tokens or 0,
        )
        if reached is None:
            return None
        return Plan(self._write_refusal(number, vendor_format, reached.to_refusal(prompt.conversation.model)))

    def _plan_answer(
        self, number: int, vendor_format: SimulatedFormat, prompt: Prompt, fault: Fault | None, attempt: int
    ) -> Plan:
        """Plan the answer to an admitted request: a refusal, or the brain's answer, possibly with a fault."""
        conversation = prompt.conversation
        plan = Plan(WEB_PAGE, conversation.key, conversation.turn, attempt, fault)
        refusal = find_refusal(self.faults, fault, conversation, self.meter)
        if refusal:
            return replace(
                plan,
                answer=self._write_refusal(number, vendor_format, refusal),
                fault=fault if fault in REFUSING else None,
            )
        try:
            reply = self._make_reply(vendor_format, prompt, self.brain.answer(conversation))
        except Exception as error:  # a user's brain may have bugs: report the place and go on serving
            unexpected = Refusal(RefusalKind.UNEXPECTED, _explain_error(self.brain, error))
            return replace(
                plan, answer=self._write_refusal(number, vendor_format, unexpected), fault=None, unexpected=True
            )
        usage = reply.usage
        if fault in ALTERING:
            spoiled = self._spoil_reply(fault, reply, conversation)
            fault, reply = (fault, spoiled) if spoiled else (None, reply)
            usage = usage if fault in MISREPORTING else reply.usage
        self._limit.charge_output(usage.output_tokens if usage else 0)
        if fault in PAGES:
            http = PAGES[fault]
        elif fault is Fault.ERROR_IN_200:
            http = self._write_error_in_200(number, vendor_format)
        else:
            http = self._write_http(number, vendor_format, 200, vendor_format.write_reply(reply, int(time.time())))
        return replace(plan, answer=http, fault=fault, usage=usage, delay_ms=self._delay_ms(plan, fault))

    def _make_reply(self, vendor_format: SimulatedFormat, prompt: Prompt, answer: Answer) -> Reply:
        conversation = prompt.conversation
        seed = f"{conversation.key}_{conversation.turn}"
        calls: tuple[SimulatedCall, ...] = ()
        if isinstance(answer, Use):
            ids = answer.ids or [f"{vendor_format.call_prefix}{seed}_{ordinal}" for ordinal in range(len(answer.calls))]
            raw = [
                (name, arguments if isinstance(arguments, str) else dump_json(arguments))
                for name, arguments in answer.calls
            ]
            calls = tuple(SimulatedCall(call_id, *call) for call_id, call in zip(ids, raw, strict=True))
        output_tokens = count_output_tokens(answer.text, ((call.name, call.arguments) for call in calls))
        usage: Usage | None = self.meter.read(prompt).model_copy(update={"output_tokens": output_tokens})
        if answer.stop is Stop.LENGTH:
            usage = use_up_tokens(usage, conversation)
        return Reply(seed, self.faults.answers_as or conversation.model, answer.text, calls, answer.stop, usage)

    def _spoil_reply(self, fault: Fault, reply: Reply, conversation: Conversation) -> Reply | None:
        """Apply the fault to the reply. None if the fault does not apply to it."""
        # A positional brain answers the whole turn again. So valid calls next to a spoiled one would run twice.
        safe = not self.brain.positional or (self.faults.spoil_positional and len(reply.calls) == 1)
        if fault in SPOILING and not safe:
            return None
        return spoil(fault, reply, conversation, self.faults.seed)

    def _delay_ms(self, plan: Plan, fault: Fault | None) -> float:
        low, high = self._latency_ms
        luck = chance(self.faults.seed, plan.conversation, plan.turn, plan.attempt, "latency")
        return low + (high - low) * luck + (self.faults.slow_ms if fault is Fault.SLOW else 0)

    def _write_refusal(self, number: int, vendor_format: SimulatedFormat, refusal: Refusal) -> HttpAnswer:
        status, body = vendor_format.write_refusal(refusal, _request_id(number))
        answer = self._write_http(number, vendor_format, status, body)
        if refusal.retry_after_s is not None:
            answer.headers["retry-after"] = f"{refusal.retry_after_s:g}"
        if refusal.kind is RefusalKind.UNEXPECTED:
            answer.headers["x-should-retry"] = "false"
        return answer

    def _write_error_in_200(self, number: int, vendor_format: SimulatedFormat) -> HttpAnswer:
        _, body = vendor_format.write_refusal(Refusal(RefusalKind.OVERLOADED), _request_id(number))
        return self._write_http(number, vendor_format, 200, body)

    def _write_http(self, number: int, vendor_format: SimulatedFormat, status: int, body: JsonObject) -> HttpAnswer:
        states = self._limit.states()
        requests = states.pop("requests", None)
        return HttpAnswer(
            status,
            vendor_format.write_headers(_request_id(number), requests, datetime.now(UTC), states.values()),
            encode_json(body),
        )


def _request_id(number: int) -> str:
    """Make a request id that contains the number of the journal entry."""
    return f"req_{number:08d}"


def _explain_error(brain: Brain, error: Exception) -> str:
    """Explain why there is no answer. For an unexpected error, give its name and place only; its text may quote the prompt."""
    if isinstance(error, UnexpectedCall):
        return str(error)
    line = traceback.extract_tb(error.__traceback__)[-1]
    return f"{brain.name} raised {type(error).__name__} at {line.filename}:{line.lineno}"
