"""The client processes of `bench admission`. They start once and read requests from standard input.

A request is one line of JSON, and so is its answer. A client ends when its input closes, so it never outlives the
benchmark.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any, Self

from midwatch.orchestration.errors import MidwatchError
from midwatch.workers.bench.admission.peers import CONTENDERS, Contender, Decisions

WARM_CALLS = 20
LEAD_S = 0.05
"""Time from the request to the start of the measurement. By then all clients have read the request."""

ANSWER_TIMEOUT_S = 60.0
"""Longest wait for an answer, beyond the measured time. Sixteen clients may import their libraries on one CPU."""


@dataclass
class Tally:
    """The counts of one or more clients."""

    decisions: int = 0
    unexpected: int = 0
    """Decisions with another result than expected, or with an error."""
    error: str = ""
    """The first error."""
    took_us: Counter[int] = field(default_factory=Counter)
    """Microseconds -> number of decisions that took this long."""

    def add(self, other: Tally) -> None:
        """Add the counts of another client."""
        self.decisions += other.decisions
        self.unexpected += other.unexpected
        self.error = self.error or other.error
        self.took_us.update(other.took_us)


class Clients:
    """A number of client processes for one server."""

    def __init__(self, url: str, processes: int) -> None:
        argv = [sys.executable, "-m", __name__, url]
        with ExitStack() as started:
            self._processes = [
                started.enter_context(
                    subprocess.Popen(  # noqa: S603 - a fixed command line
                        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
                    )
                )
                for _ in range(processes)
            ]
            started.pop_all()

    @property
    def pids(self) -> list[int]:
        """Process ids of all clients."""
        return [process.pid for process in self._processes]

    def prepare(self, contender: Contender, processes: int) -> None:
        """Let the first `processes` clients connect as this contender and make some decisions. Raises MidwatchError."""
        self._request(processes, {"prepare": contender.name}, 0.0)

    def decide(self, processes: int, seconds: float) -> Tally:
        """Let the clients decide concurrently for `seconds`, and then disconnect. Raises MidwatchError."""
        start_s = time.monotonic() + LEAD_S
        tally = Tally()
        for answer in self._request(processes, {"start_s": start_s, "end_s": start_s + seconds}, seconds):
            took_us = {int(us): decisions for us, decisions in answer.pop("took_us").items()}
            tally.add(Tally(**answer, took_us=Counter(took_us)))
        return tally

    def _request(self, processes: int, request: dict[str, Any], takes_s: float) -> list[dict[str, Any]]:
        chosen = self._processes[:processes]
        for process in chosen:
            _send(process, request)
        give_up_s = time.monotonic() + takes_s + ANSWER_TIMEOUT_S
        answers = [_receive(process, give_up_s - time.monotonic()) for process in chosen]
        failed = next((answer["failed"] for answer in answers if "failed" in answer), None)
        if failed is not None:
            raise MidwatchError(f"a client of the benchmark failed at {request}: {failed}")
        return answers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()  # they hold no data: the server that they wrote to ends as well
        for process in self._processes:
            process.communicate()


def _send(process: subprocess.Popen[str], request: dict[str, Any]) -> None:
    try:
        _pipe(process.stdin).write(json.dumps(request) + "\n")
        _pipe(process.stdin).flush()
    except BrokenPipeError:  # `_receive` reports the missing answer
        return


def _receive(process: subprocess.Popen[str], timeout_s: float) -> dict[str, Any]:
    answers = _pipe(process.stdout)
    readable, _, _ = select.select([answers], [], [], max(0.0, timeout_s))
    line = answers.readline() if readable else ""
    if not line:
        what = f"ended with {process.wait()}" if readable else f"did not answer within {timeout_s:.0f} s"
        raise MidwatchError(f"client {process.pid} of the benchmark {what}; its last messages are on standard error")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "opened as a pipe"  # noqa: S101 - for the type checker
    return stream


def serve(url: str, requests: IO[str], answers: IO[str]) -> None:
    """Answer requests until the input closes."""
    contenders = {contender.name: contender for contender in CONTENDERS}
    with ExitStack() as connections:
        for line in requests:
            request = json.loads(line)
            try:
                if "prepare" in request:
                    contender = contenders[request["prepare"]]
                    decisions = connections.enter_context(contender.connect(url))
                    for _ in range(WARM_CALLS):
                        next(decisions)()
                    answer = {}
                else:
                    answer = vars(hammer(decisions, contender.admits, request["start_s"], request["end_s"]))
                    connections.close()
            except Exception as error:
                answer = {"failed": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def hammer(decisions: Decisions, admits: bool, start_s: float, end_s: float) -> Tally:
    """Make decisions from `start_s` to `end_s` of the monotonic clock, which all processes share."""
    tally = Tally()
    took_us = tally.took_us
    time.sleep(max(0.0, start_s - time.monotonic()))
    for decide in decisions:
        began_s = time.monotonic()
        if began_s >= end_s:
            break
        try:
            admitted: bool | None = decide()
        except Exception as error:  # a library may fail under load; such failures are counted
            admitted = None
            tally.error = tally.error or f"{type(error).__name__}: {error}"
        took_us[int((time.monotonic() - began_s) * 1_000_000)] += 1
        tally.decisions += 1
        tally.unexpected += admitted is not admits
    return tally


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr  # output of a library must not mix with the answers
    serve(sys.argv[1], sys.stdin, answers)
