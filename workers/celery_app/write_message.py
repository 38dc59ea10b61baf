"""Write a step as a Celery message for Redis, without kombu.

Writing a message here costs 5 us; `apply_async` costs 700 us. It also allows a script to push the message in the commit.
The format is that of Celery (protocol 2) and kombu's Redis transport. `tests/contract/test_wire.py` compares it with the
installed packages. With `MIDWATCH_HAND_OFF=false` messages are published through Celery instead.
"""

from __future__ import annotations

import json
import os
import socket
from itertools import count

from midwatch.schemas.contract import WIRE_VERSION
from midwatch.schemas.step import Priority, StepKind, StepRef

TASKS = {StepKind.MODEL: "midwatch.model", StepKind.TOOL: "midwatch.tool", StepKind.COMPACT: "midwatch.compact"}
QUEUES = {StepKind.MODEL: "model", StepKind.TOOL: "tools", StepKind.COMPACT: "maintenance"}

PRIORITIES = {Priority.HIGH: 0, Priority.NORMAL: 3, Priority.LOW: 6, Priority.REPLAY: 8}
"""Priority -> Celery's number. On Redis, 0 is served first. A job's first step has the next number: 1, 4, 7 or 9."""
NUMBERS = tuple(sorted(number + first for number in PRIORITIES.values() for first in (0, 1)))
"""All numbers, in the order in which workers serve them."""
FIRST_NUMBERS = frozenset(number + 1 for number in PRIORITIES.values())
"""Numbers of first steps. Only the model queue has them."""
SEPARATOR = "\x06\x16"
"""kombu's separator between a queue's name and a priority."""

_tags = count()


def queue_number(priority: Priority, *, first: bool = False) -> int:
    """Return Celery's number for the steps of one priority. `first` means jobs' first steps: they go behind all others."""
    return PRIORITIES[priority] + first


def queue_key(queue: str, priority: Priority, *, first: bool = False) -> str:
    """Return the key of the Redis list that holds a queue's messages of one priority: of first steps, or of all others."""
    return numbered_key(queue, queue_number(priority, first=first))


def numbered_key(queue: str, number: int) -> str:
    """Return the key of the Redis list for one of Celery's numbers."""
    return f"{queue}{SEPARATOR}{number}" if number else queue


def queue_keys(prefix: str, kind: StepKind) -> list[str]:
    """Return the keys of all lists of a queue, in the order in which workers serve them."""
    numbers = NUMBERS if kind is StepKind.MODEL else PRIORITIES.values()
    return [numbered_key(f"{prefix}.{QUEUES[kind]}", number) for number in numbers]


def is_first(ref: StepRef) -> bool:
    """Is this the first step of its job? Until it is claimed, the job has not begun."""
    return ref.step == "1"


def envelope(ref: StepRef) -> dict[str, object]:
    """Return the task's keyword arguments. They are ids only."""
    return {
        "v": WIRE_VERSION,
        "job_id": ref.job_id,
        "session_id": ref.session_id,
        "step": ref.step,
        "priority": ref.priority.value,
    }


class CeleryMessageWriter:
    """Writes the messages of one producing process."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._origin = f"{os.getpid()}@{socket.gethostname()}"

    def write(self, ref: StepRef, *, begun: bool = False) -> bytes:
        """Return the message as it is stored in the Redis list. Ids hold no character that needs escaping in JSON.

        `begun` means that a worker has claimed the step before, so it does not count as a first step.
        """
        kind = ref.kind
        priority = queue_number(ref.priority, first=is_first(ref) and not begun)
        task_id = f"{ref.job_id}.{ref.step}"
        arguments = (
            f'{{"v":{WIRE_VERSION},"job_id":"{ref.job_id}","session_id":"{ref.session_id}","step":"{ref.step}",'
            f'"priority":"{ref.priority.value}"}}'
        )
        body = json.dumps(f'[[],{arguments},{{"callbacks":null,"errbacks":null,"chain":null,"chord":null}}]')
        shown = f"{{'job_id': '{ref.job_id}', 'step': '{ref.step}'}}"
        return (
            f'{{"body":{body},"content-encoding":"utf-8","content-type":"application/json","headers":{{"lang":"py",'
            f'"task":"{TASKS[kind]}","id":"{task_id}","shadow":null,"eta":null,"expires":null,"group":null,'
            f'"group_index":null,"retries":0,"timelimit":[null,null],"root_id":"{ref.job_id}","parent_id":null,'
            f'"argsrepr":"()","kwargsrepr":"{shown}","origin":"{self._origin}","ignore_result":true,'
            f'"replaced_task_nesting":0,"stamped_headers":null,"stamps":{{}}}},"properties":{{"correlation_id":"{task_id}",'
            f'"reply_to":"","delivery_mode":2,"delivery_info":{{"exchange":"","routing_key":"{self._prefix}.{QUEUES[kind]}"}},'
            f'"priority":{priority},"delivery_tag":"{self._origin}.{next(_tags)}"}}}}'
        ).encode()
