"""The marks that models put around tool calls, when their server does not parse them.

Source of the list: the tool call parsers of vLLM 0.12 (`hermes`, `mistral`, `llama3_json`, `pythonic`, `deepseek_v3`, `kimi_k2`,
`glm45`, `qwen3_xml`, `minimax_m2`, `granite`, `internlm`, `jamba`, `step3`, `seed_oss`, `phi4_mini_json` and others), the formats
of Gemma, gpt-oss and Claude, and public reports of each mark in an answer.
"""

from __future__ import annotations

import re

SPECIAL = re.compile(
    r"""
      <[|｜]\s?(?:DSML|tool|python_tag|python_start|action_start|START_ACTION|plugin|Function_?Call|function_?call)[^>\n]{0,60}>
    | <\|channel\|>commentary\s+to=
    | <\|recipient\|>
    | \[(?:TOOL_CALLS?|TOOL_REQUEST)\]
    | ✿FUNCTION✿:?
    | \bfunctools\[
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Marks that no user writes: special tokens of chat templates."""

TAGS = re.compile(
    r"""
      <(?:\w{1,20}:)?(?:longcat_|start_)?(?:tool_?calls?|function_?calls?|tool_use|call_tool|use_tool|use_mcp_tool)(?:\s+name=[^>\n]{1,90})?>
    | <function=
    | <(?:\w{1,20}:)?(?:invoke|function)\s+name\s*=
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Marks in the form of tags. A text about XML or about tool calls may hold them."""

_PAYLOAD = re.compile(
    r"""
    (?:\s | <[|｜][^>\n]{0,60}> | <[^>\n]{0,80}> | function\b | assistant\b){0,100}+   # more marks
    (?: $ | [{\[(] | ["'][\w.-]+["']? | (?:functions\.|call:)?[\w.-]{1,80}\s*(?: $ | \n | [{\[(<:>] ) )
    """,
    re.VERBOSE,
)
"""What follows the mark of a call: its name or its arguments, or nothing. Never a sentence."""

NAME_CHARS = 600
"""The name of the tool is searched within this number of characters after a mark."""

_CALL_END = re.compile(r"</|\n[ \t]*\n")


def is_call_at(text: str, end: int) -> bool:
    """Does the text after a mark look like a call? `end` is where the mark ends."""
    return _PAYLOAD.match(text, end) is not None


def names_tool_at(text: str, end: int, names: re.Pattern[str]) -> bool:
    """Does the call after a mark name one of the tools?"""
    call = text[end : end + NAME_CHARS].lstrip()
    if close := _CALL_END.search(call):
        call = call[: close.start()]
    return names.search(call) is not None


def compile_names(names: list[str]) -> re.Pattern[str]:
    """Compile a pattern that finds a name where a call has it, and not in a sentence. Without names it finds nothing."""
    if not names:
        return re.compile(r"(?!)")
    return re.compile(
        rf"(?:^|[\"'=:.>|｜\[\]\n(])\s*(?:{'|'.join(map(re.escape, names))})(?=[\"'>:.({{\[<|｜\n]|\s*[<(]|$)"
    )


def compile_react(names: list[str]) -> re.Pattern[str]:
    """Compile a pattern that finds a call of ReAct prompts: `Action: NAME[…]`, or `Action: NAME` and `Action Input:`."""
    if not names:
        return re.compile(r"(?!)")
    name = rf"(?:{'|'.join(map(re.escape, names))})"
    return re.compile(rf"(?:^|\n)Action:\s*{name}(?:\s*\nAction Input:|[\[(][^\n]*[\])]\s*\Z)")
