"""Single large messages: a prompt or a result beyond the budget is cut, the whole text is stored, and the job goes on."""

from __future__ import annotations

import json
import time
from typing import Any

from midwatch import tool
from midwatch.orchestration.store.conversation.log_cache import decode, encode
from midwatch.orchestration.tools.result_pages import pack
from midwatch.schemas.message import ToolCall, ToolMessage
from midwatch.schemas.model import ModelRequest
from tests.unit.longtalk import Talk, Talker, budget, clerk, prompts


def called(name: str, **arguments: Any) -> ToolCall:
    """Make a model's call."""
    return ToolCall(id="c", name=name, raw_arguments=json.dumps(arguments))


def test_a_prompt_larger_than_the_budget_is_cut():
    """Head and tail are sent, and `read_result` pages through the rest."""
    prompt = "Read this. " + "".join(f"Line {n} says {n * 7}. " for n in range(3_000)) + "What does line 1500 say?"
    page: list[str] = []

    def says(number: int, request: ModelRequest) -> list[Any] | None:
        (said,) = prompts(request)
        if number == 1:
            assert said.startswith("Read this.")
            assert said.endswith("What does line 1500 say?")
            handle = said.partition('handle="')[2].partition('"')[0]
            return [called("read_result", handle=handle, offset=prompt.index("Line 1500 "), length=60)]
        page.extend(message.content for message in request.messages if isinstance(message, ToolMessage))
        return None

    talk = Talk(clerk(), Talker(1, says=says))
    assert talk.run(prompt).output == "All done."
    assert page[0].startswith("Line 1500 says 10500.")
    assert talk.most_tokens() <= 6_000


def test_a_job_survives_a_tool_result_of_three_megabytes():
    """Head and tail are sent, and the whole is stored, also for the next results. No call exceeds the budget."""

    @tool(inline=True, idempotent=True)
    def look_up(number: int) -> str:
        """Export a table."""
        return "".join(f'{{"row": {row}, "id": "W-{number}-{row}"}}\n' for row in range(100_000))

    talk = Talk(clerk(tools=[look_up], context_budget=budget(24_000)), Talker(4))
    began_s = time.monotonic()
    assert talk.run().output == "All done."
    assert time.monotonic() - began_s < 60
    assert talk.most_tokens() <= 24_000


def test_a_result_of_three_megabytes_in_the_log_is_cut():
    """Another release, or a tool without a limit, may have stored it."""
    talk = Talk(clerk(), model := Talker(6))
    client, keys = talk.fleet.client, talk.fleet.store.keys
    whole = "row after row; " * 200_000

    def blow_up(number: int, request: ModelRequest) -> None:
        if number == 4:
            log = [decode(entry)[0] for entry in client.lrange(keys.log("s1"), 0, -1)]
            at = next(n for n, message in enumerate(log) if isinstance(message, ToolMessage))
            client.lset(keys.log("s1"), at, encode(log[at].model_copy(update={"content": whole})))
            client.hincrby(keys.session("s1"), "epoch", 1)

    model.fail = blow_up
    began_s = time.monotonic()
    assert talk.run().output == "All done."
    assert time.monotonic() - began_s < 60
    assert pack(whole) in client.hvals(keys.results("s1"))
    assert talk.most_tokens() <= 6_000
