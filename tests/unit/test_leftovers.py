"""What servers leave in the text of a reply: tool calls are refused as drift, thinking is separated from the answer."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch import Agent, tool
from midwatch.orchestration.drift.leftovers.calls_in_text import holds_call
from midwatch.orchestration.drift.leftovers.thinking import separate_thinking
from midwatch.orchestration.tools.toolbox import Toolbox
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import AssistantMessage, NoteMessage, Opaque
from midwatch.testing import InlineFleet, ScriptedModel, call

ran: list[str] = []


@tool
def look_up(order: str) -> str:
    """Look up an order."""
    ran.append(order)
    return f"{order} is on its way"


@tool
def search(query: str, limit: int = 3) -> str:
    """Search the orders."""
    ran.append(query)
    return "nothing"


BOX = Toolbox([look_up, search])

CALL = '{"name": "look_up", "arguments": {"order": "A-17"}}'

LEFT = [
    f"<tool_call>\n{CALL}\n</tool_call>",
    f"I will check that.\n\n<tool_call>{CALL}</tool_call>",
    f"Sure. <tool_call>{CALL}</tool_call>",
    f"<tool_call>\n{CALL}",
    "<tool_call>look_up\n<arg_key>order</arg_key>\n<arg_value>A-17</arg_value>\n</tool_call>",
    "<tool_call>\n<function=look_up>\n<parameter=order>\nA-17\n</parameter>\n</function>\n</tool_call>",
    '<function=look_up>{"order": "A-17"}</function>',
    '<function_calls>\n<invoke name="look_up">\n<parameter name="order">A-17</parameter>\n</invoke>\n</function_calls>',
    'Let me see.\n<invoke name="look_up">\n<parameter name="order">A-17</parameter>\n</invoke>',
    '<minimax:tool_call>\n<invoke name="look_up">\n<parameter name="order">A</parameter>\n</invoke>\n</minimax:tool_call>',
    "<seed:tool_call>\n<function=look_up>\n<parameter=order>A</parameter>\n</function>\n</seed:tool_call>",
    f"<TOOLCALL>[{CALL}]</TOOLCALL>",
    f"<tool_calls>[{CALL}]</tool_calls>",
    f"[TOOL_CALLS] [{CALL}]",
    '[TOOL_CALLS]look_up[ARGS]{"order": "A-17"}',
    '[TOOL_CALLS]look_up{"order": "A-17"}',
    f"[TOOL_REQUEST]{CALL}[END_TOOL_REQUEST]",
    f"<|tool_call|>[{CALL}]<|/tool_call|>",
    '<|tool_call>call:look_up{order:<|"|>A-17<|"|>}<tool_call|>',
    '<|tool_calls_section_begin|><|tool_call_begin|>functions.look_up:0<|tool_call_argument_begin|>{"order": "A"}'
    "<|tool_call_end|><|tool_calls_section_end|>",
    '<|python_tag|>{"name": "look_up", "parameters": {"order": "A-17"}}',
    '<|python_tag|>look_up.call(order="A-17")',
    '<|python_start|>[look_up(order="A-17")]<|python_end|>',
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look_up\n```json\n{"order": "A-17"}\n```'
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look_up<｜tool▁sep｜>{"order": "A"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    '<｜DSML｜function_calls>\n<｜DSML｜invoke name="look_up">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
    '<|channel|>commentary to=functions.look_up <|constrain|>json<|message|>{"order": "A-17"}<|call|>',
    '<|action_start|><|plugin|>\n{"name": "look_up", "parameters": {"order": "A-17"}}<|action_end|>',
    '<|FunctionCallBegin|>[{"name": "look_up", "parameters": {"order": "A"}}]<|FunctionCallEnd|>',
    f"functools[{CALL}]",
    '✿FUNCTION✿: look_up\n✿ARGS✿: {"order": "A-17"}',
    'Thought: I need the order.\nAction: look_up\nAction Input: {"order": "A-17"}',
    '```tool_code\nprint(default_api.look_up(order="A-17"))\n```',
    'I will look.\n```tool_code\nlook_up(order="A-17")\n```',
    CALL,
    f"```json\n{CALL}\n```",
    f"```\n{CALL}\n```",
    f"```xml\n<tool_call>{CALL}</tool_call>\n```",
    f"[{CALL}, {CALL}]",
    f"{CALL}\n{CALL}",
    f"{CALL}; {CALL}",
    '{"name": "look_up", "parameters": {"order": "A-17"}}',
    '{"type": "function", "name": "look_up", "parameters": {"order": "A-17"}}',
    f'{{"type": "function", "function": {CALL}}}',
    '{"function": "look_up", "arguments": "{\\"order\\": \\"A-17\\"}"}',
    '{"tool": "look_up", "input": {"order": "A-17"}}',
    '{"thought": "I need it", "action": "look_up", "action_input": {"order": "A-17"}}',
    f'{{"tool_calls": [{CALL}]}}',
    '{"tool_uses": [{"recipient_name": "functions.look_up", "parameters": {"order": "A"}}]}',
    '{"look_up": {"order": "A-17"}}',
    'look_up(order="A-17")',
    '[look_up(order="A-17"), search(query="x")]',
    f"Let me look.\n{CALL}",
    f"I will look that up.\n\n```json\n{CALL}\n```",
    f"Ich sehe nach:\n```\n{CALL}\n```",
    'Let me check.\n```python\nlook_up(order="A-17")\n```',
    f"Thought: I need it.\nAction:\n```\n{CALL}\n```",
    'Thought: I need it.\nAction: look_up(order="A-17")',
    "Action: look_up[A-17]",
    f"<tools>\n{CALL}\n</tools>",
    f"<tool>{CALL}</tool>",
    '<tool_call name="look_up">\n<order>A-17</order>\n</tool_call>',
    "<look_up>\n<order>A-17</order>\n</look_up>",
    "I will look it up.\n\n<look_up>\n<order>A-17</order>\n</look_up>",
    '<look_up>{"order": "A-17"}</look_up>',
    'look_up\n{"order": "A-17"}',
    'look_up: {"order": "A-17"}',
    'functions.look_up:0 {"order": "A-17"}',
    'assistantcommentary to=functions.look_up json{"order": "A-17"}',
    'await look_up(order="A-17")',
    'state = look_up(order="A-17")',
    CALL[:-1],
    CALL.replace('"', "'"),
    CALL[:-1] + ', "id": "call_1", "type": "function", "status": "completed"}',
    '<tool_call>\n{"name": "fetch_order", "arguments": {"id": 1}}\n</tool_call>',
    'I check.\n<tool_call>\n{"name": "fetch_order", "arguments": {"id": 1}}\n</tool_call>',
    "<tool_call>",
]
"""Texts with a call of each format, as models of these formats write them."""

HONEST = [
    "Order A-17 is on its way.",
    "Hermes models put each call between `<tool_call>` and `</tool_call>`.",
    "The tag <tool_call> begins a call, and the token [TOOL_CALLS] does so at Mistral.",
    "<tool_call> is the tag with which Hermes begins a call.",
    f"A call looks like this:\n\n```xml\n<tool_call>\n{CALL}\n</tool_call>\n```\n\nThe server parses it.",
    f"A call names the tool and its arguments.\n\nIt looks like this:\n\n```json\n{CALL}\n```",
    "<answer>\n<order>A-17</order>\n</answer>",
    "<search>\n<results>3</results>\n</search>",
    "search: three results.",
    'search\n{"results": 3',
    '{"name": "look_up", "parameters": {"type": "object"}, "description": "Finds an order."}',
    f"A call looks like this: `<tool_call>{CALL}</tool_call>`. Your server has to parse it.",
    f"> <tool_call>{CALL}</tool_call>\n\nThis line in your log is a call that the server did not parse.",
    'Mistral writes\n[TOOL_CALLS] [{"name": "get_weather", "arguments": {}}]\nand Llama writes <|python_tag|> first.',
    "| mark | model |\n|---|---|\n| <tool_call> | Hermes |\n| <|python_tag|> | Llama |\n| [TOOL_CALLS] | Mistral |",
    "- <tool_call>: Hermes, Qwen\n- <function=name>: Llama 3\n- <|tool_call|>: Granite\n- <invoke name=...>: Claude",
    "Use look_up to find an order, and search to find more of them. Both are tools of this agent.",
    'To call it in Python, write:\n\n```python\nlook_up(order="A-17")\n```\n\nIt returns the state of the order.',
    '{"name": "Ann", "arguments": ["too late", "broken"]}',
    '{"name": "look_up", "description": "Look up an order.", "parameters": {"type": "object", "properties": {}}}',
    '{"action": "search"}',
    '{"name": "look_up"}',
    '{"orders": [{"name": "A-17", "parameters": {"colour": "red"}}]}',
    '{"look_up": "done", "search": "skipped"}',
    '{"search": {"results": 3}}',
    f'{{"answer": "the log holds <tool_call>{CALL.replace(chr(34), chr(39))}</tool_call>"}}',
    '<config>\n  <function name="setup">\n    <arg>1</arg>\n  </function>\n</config>',
    '<function name="setup">\n  <arg>1</arg>\n</function>',
    '<invoke name="build"/> is an Ant target.',
    '<?xml version="1.0"?>\n<tools><invoke name="x"/></tools>',
    "The result of 3 < 5 | 7 > 2 is [true]. See f(x) = search(x) in the paper.",
    'I called look_up(order="A-17") and it said: on its way.',
    "Action: none needed.\nThe order is on its way.",
    "[see the docs](https://x.test) for `functions.look_up`.",
    "",
]
"""Honest answers that speak of tools, quote XML, or are JSON."""


@pytest.mark.parametrize("text", LEFT)
def test_a_call_that_was_left_in_the_text_is_found(text: str) -> None:
    """Each format of a tool call is found, also after a sentence, cut off, or in a code block that is the whole answer."""
    assert holds_call(text, BOX)


@pytest.mark.parametrize("text", HONEST)
def test_an_honest_answer_is_not_taken_for_a_call(text: str) -> None:
    """An answer may explain, quote and list the marks of calls, show them in code, and be XML or JSON."""
    assert not holds_call(text, BOX)
    assert not holds_call(text, Toolbox([]))


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think>\nhm\n</think>\n\nFour.", "hm", "Four."),
        ("<think></think>Four.", "", "Four."),
        ("  <think>a</think>\n<think>b</think>Four.", "a\nb", "Four."),
        ("[THINK]hm[/THINK]Four.", "hm", "Four."),
        ("◁think▷hm◁/think▷Four.", "hm", "Four."),
        ("hm, two and two\n</think>\n\nFour.", "hm, two and two", "Four."),
        (
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Four.<|return|>",
            None,
            "Four.",
        ),
        ("analysisTwo and two.assistantfinalFour.", "Two and two.", "Four."),
        ("Two and two.</think>\n\nFour.", "Two and two.", "Four."),
        ("<|START_THINKING|>hm<|END_THINKING|>Four.", "hm", "Four."),
        ("<unused94>thought\nhm<unused95>Four.", "hm", "Four."),
        ("<think>two and two", "two and two", ""),
        ("<think>hm</think>", "hm", ""),
        ("Four.", "", "Four."),
        ("  Four.\n", "", "  Four.\n"),
        ("The tag `<think>` begins thinking, `</think>` ends it.", "", None),
        ("```\nhm\n</think>\n```\nThis is a log.", "", None),
        ("analysis of the order: it is late", "", None),
        ("A model ends its thinking with </think>\nand goes on.", "", None),
        ("<thinking>hm</thinking>\n<answer>Four.</answer>", "", None),
    ],
)
def test_thinking_is_separated_from_the_answer(text: str, thinking: str | None, answer: str | None) -> None:
    """Thinking at the beginning is no part of the answer. A text about it, or a part that a prompt asked for, stays."""
    found = separate_thinking(text)
    assert found.answer == (text if answer is None else answer)
    assert thinking is None or found.thinking == thinking


class Counted(str):
    """A text that counts how many characters of it are copied."""

    copied = 0

    def _copy(self, found: str) -> Counted:
        Counted.copied += len(found)
        return Counted(found)

    def __getitem__(self, place: Any) -> Counted:
        return self._copy(str(self)[place])

    def lstrip(self, *chars: Any) -> Counted:
        return self._copy(str(self).lstrip(*chars))

    def removeprefix(self, prefix: str, /) -> Counted:
        return self._copy(str(self).removeprefix(prefix))

    def partition(self, mark: str, /) -> Any:
        return tuple(self._copy(part) for part in str(self).partition(mark))


def test_thousands_of_thoughts_take_linear_time() -> None:
    """Each thought is passed once: the text is read from place to place, and never copied."""

    text = Counted("<think>hm</think>\n" * 5_000 + "Four.")
    assert separate_thinking(text).answer == "Four."
    assert 0 < Counted.copied < 5 * len(text)


def agent() -> Agent:
    return Agent("clerk", "scripted:m-1", "You help.", tools=[look_up, search])


def run(*replies: str) -> tuple[InlineFleet, str]:
    ran.clear()
    fleet = InlineFleet(model=ScriptedModel([*replies]))
    return fleet, fleet.enqueue(agent(), "Where is A-17?")


def test_a_call_in_the_text_is_corrected_and_never_runs() -> None:
    """The model gets an error that says that nothing ran. Its next answer is the output. The drift counters see the
    refusal."""
    fleet, job_id = run(f"<tool_call>{CALL}</tool_call>", "It is on its way.")
    assert fleet.run(job_id).output == "It is on its way."
    assert ran == []
    notes = [message for message in fleet.messages(job_id) if isinstance(message, NoteMessage)]
    assert [note.refused for note in notes] == ["call_in_text"]
    names = [name for _, name in fleet.store.drift_counters(1)]
    assert any(name.startswith("invalid|scripted:m-1|(answer)|") and name.endswith("|call_in_text") for name in names)


def test_a_model_that_only_writes_calls_as_text_ends_on_the_ladder() -> None:
    """The third identical text ends the job. It is a dead letter that says why, and no completed answer."""
    fleet, job_id = run(*[f"<tool_call>{CALL}</tool_call>"] * 3)
    result = fleet.run(job_id)
    assert (result.status, ran) == (JobStatus.DEAD_LETTERED, [])
    assert result.failure is not None
    assert result.failure.kind is FailureKind.OUTPUT_INVALID
    assert "call_in_text" in result.failure.detail


@pytest.mark.parametrize(
    "text", ["<think>hm, I should", "<think>hm</think>\n", "<thinking>hm", "<reasoning>hm</reasoning>"]
)
def test_thinking_without_an_answer_is_corrected(text: str) -> None:
    """Thinking that does not end, or that nothing follows, is not an answer."""
    fleet, job_id = run(text, "On its way.")
    assert fleet.run(job_id).output == "On its way."
    assert [m.refused for m in fleet.messages(job_id) if isinstance(m, NoteMessage)] == ["thinking"]


def test_thinking_before_an_answer_is_kept_apart() -> None:
    """The output is the answer alone. The thinking stays in the session, and no later request holds it."""
    ran.clear()
    model = ScriptedModel(["<think>hm</think>\n\nOn its way.", "Yes."])
    fleet = InlineFleet(model=model)
    job_id = fleet.enqueue(agent(), "Where is A-17?", session_id="s-1")
    assert fleet.run(job_id).output == "On its way."
    (said,) = (message for message in fleet.messages(job_id) if isinstance(message, AssistantMessage))
    assert said.text == "On its way."
    assert [part.provider for part in said.parts if isinstance(part, Opaque)] == [""]
    fleet.run(fleet.enqueue(agent(), "Sure?", session_id="s-1"))


def test_thinking_before_json_does_not_break_it() -> None:
    """An answer with an output schema is decoded without the thinking before it."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    clerk = Agent("clerk", "scripted:m-1", "You help.", output_schema=schema)
    fleet = InlineFleet(model=ScriptedModel(['<think>hm</think>{"n": 4}']))
    assert fleet.run(fleet.enqueue(clerk, "2 + 2?")).output == '{"n": 4}'


def test_json_that_the_output_schema_accepts_is_an_answer() -> None:
    """If the user asked for an object that looks like a call, it is the answer."""
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
        "required": ["name", "arguments"],
    }
    clerk = Agent("clerk", "scripted:m-1", "You plan.", tools=[look_up], output_schema=schema)
    fleet = InlineFleet(model=ScriptedModel([CALL]))
    assert fleet.run(fleet.enqueue(clerk, "Plan it.")).output == CALL


def test_text_beside_a_real_call_is_not_judged() -> None:
    """A reply with a real tool call is a turn like any other, for any text."""
    fleet = InlineFleet(model=ScriptedModel([[f"<tool_call>{CALL}</tool_call>", call("look_up", order="A")], "Done."]))
    assert fleet.run(fleet.enqueue(agent(), "Where is A?")).output == "Done."
