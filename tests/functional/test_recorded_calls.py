"""Calls that recorded models really made: valid calls run, and broken ones get answers that a model can act on."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7, DRAFT202012

from midwatch import Agent, tool
from midwatch.orchestration.dialects import rules
from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.steps.read_reply import read_reply
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.toolbox import CheckedCall, RefusedCall, Toolbox
from midwatch.orchestration.validation.arguments import parse_arguments
from midwatch.orchestration.validation.cost import EffortBudget
from midwatch.orchestration.validation.keywords import DRAFTS, LATEST
from midwatch.schemas.message import ToolCall
from midwatch.schemas.model import Stop
from midwatch.validators import InvalidArguments, JSONSchemaValidator
from tests.unit.claims import claim_of, reply_of

DATA = Path(__file__).parents[3] / "shared" / "data"
NOTION = "@notionhq/notion-mcp-server@1.9.0 (MIT)"
FILES = "@modelcontextprotocol/server-filesystem@2026.8.31 (MIT/Apache-2.0)"

if not DATA.is_dir():
    if os.environ.get("CI"):
        raise FileNotFoundError("no recorded data in ../shared/data beside the repository, which CI needs")
    pytest.skip("no recorded data in ../shared/data beside the repository", allow_module_level=True)


def load(name: str) -> Any:
    path = DATA / name
    return json.loads(gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes())


def calls_in(name: str) -> Iterator[ToolCall]:
    """Return every call of a record, in Chat's form or flat. Decoded arguments are written as text again."""
    with gzip.open(DATA / name, "rt") as lines:
        for session in map(json.loads, lines):
            for message in session["messages"]:
                for call in message.get("tool_calls") or ():
                    said = call.get("function", call)
                    raw = said["arguments"] if isinstance(said["arguments"], str) else json.dumps(said["arguments"])
                    yield ToolCall(id=call["id"], name=said["name"], raw_arguments=raw)


def make_tool(name: str, schema: dict[str, Any], **policies: Any) -> Tool:
    """Make a tool with another author's schema. Its function takes all arguments that pass the schema."""

    @tool(name, f"Recorded: {name}.", JSONSchemaValidator(schema), **policies)
    def answer(**arguments: Any) -> str:
        return "ran"

    return answer


def tau(domain: str) -> Toolbox:
    found = (one["function"] for one in load(f"{domain}/tools.json"))
    return Toolbox([make_tool(one["name"], one["parameters"]) for one in found])


def server(key: str, prefix: str, **policies: Any) -> Toolbox:
    """Return the tools of an MCP server, with the names that the record uses."""
    tools = load("mcp_server_tools.json.gz")["servers"][key]
    return Toolbox([make_tool(prefix + one["name"], one["inputSchema"], **policies) for one in tools])


@pytest.mark.parametrize(("domain", "count"), [("tau_retail", 417), ("tau_airline", 282)])
def test_no_valid_call_is_blocked(domain: str, count: int) -> None:
    """100 tickets have 699 calls. All of them are valid, and all may run."""
    box = tau(domain)
    found = [box.check(call) for call in calls_in(f"{domain}/trajectories.jsonl.gz")]
    assert [one for one in found if not isinstance(one, CheckedCall)] == []
    assert len(found) == count


def test_a_weaker_models_bookings_are_blocked_with_the_reasons() -> None:
    """Of 124 calls of another model, eight lack required parts of a booking and four call a missing tool."""
    box = tau("tau_airline")
    found = [box.check(call) for call in calls_in("tau2_airline_repeated_ids.jsonl.gz")]
    refused = [one for one in found if isinstance(one, RefusedCall)]
    assert Counter(one.kind for one in refused) == {"schema": 8, "unknown_tool": 4}
    assert len(found) == 124
    for one in refused:
        if one.kind == "schema":
            assert one.message.startswith("book_reservation was not run: its arguments are not valid.\n/pa")
            assert "/payment_id: expected string (it is required); got nothing" in one.message
        else:
            assert one.message.startswith(
                "There is no tool 'get_flight_status'. The tools are: book_reservation, calculate,"
            )


def test_an_empty_text_is_an_empty_object_and_nothing_else_is_repaired() -> None:
    """20 calls of Claude have "" for a tool without input. Five are broken, and each gets an error with the place."""
    found: Counter[str] = Counter()
    told: list[tuple[str, str]] = []
    for call in calls_in("toolathlon_sessions.jsonl.gz"):
        empty = not call.raw_arguments
        try:
            arguments = parse_arguments(call.raw_arguments, has_required=False)
        except InvalidArguments as error:
            found[error.kind] += 1
            told.append((error.kind, str(error)))
        else:
            found["empty" if empty else "fine"] += 1
            assert arguments == ({} if empty else json.loads(call.raw_arguments))
    assert found == {"fine": 366, "empty": 20, "not_json": 3, "cut_off": 2}
    assert all(("ends after" if kind == "cut_off" else "at character") in message for kind, message in told)
    assert all(len(message) < 300 for _, message in told)


def test_calls_of_a_real_file_server_pass_its_schemas() -> None:
    """None of 48 calls breaks the schema. The two calls that were cut off after 19 KB are reported as cut off."""
    box = server(FILES, "filesystem-")
    calls = [call for call in calls_in("toolathlon_sessions.jsonl.gz") if call.name.startswith("filesystem-")]
    found = [box.check(call) for call in calls]
    refused = [one for one in found if isinstance(one, RefusedCall)]
    assert (len(found), [one.kind for one in refused]) == (48, ["cut_off", "cut_off"])
    assert all("Send the whole object again" in one.message for one in refused)


def test_every_call_of_a_coding_agent_decodes() -> None:
    """40 calls have code in their arguments, with newlines, quotes and backslashes."""
    calls = list(calls_in("sweagent_function_calling.jsonl.gz"))
    assert all(isinstance(parse_arguments(call.raw_arguments, has_required=False), dict) for call in calls)
    assert len(calls) == 40


def test_a_tool_in_shadow_mode_runs_what_its_wrong_schema_would_block() -> None:
    """A published schema does not match its own server: 16 of 34 calls would be blocked. In shadow mode none is."""
    known = [one for one in calls_in("toolathlon_sessions.jsonl.gz") if one.name.startswith("notion-API-")]
    enforced = list(map(server(NOTION, "notion-").check, known))
    shadowed = list(map(server(NOTION, "notion-", validation="shadow").check, known))
    assert Counter(getattr(one, "kind", "runs") for one in enforced) == {"runs": 18, "schema": 16, "unknown_tool": 1}
    runs = [one for one in shadowed if isinstance(one, CheckedCall)]
    assert len(runs) == 34
    assert sum(bool(one.shadowed) for one in runs) == 16
    for before, after in zip(enforced, shadowed, strict=True):
        if isinstance(before, RefusedCall) and isinstance(after, CheckedCall):
            assert after.shadowed in before.message


def test_arguments_that_are_no_object_are_refused_in_shadow_mode_too() -> None:
    """Shadow mode ignores schema violations, but not a text that is not an object."""
    box = server(NOTION, "notion-", validation="shadow")
    for raw in ('{"a":', "[]", '{"a": NaN}', '{"a": 1, "a": 2}'):
        assert isinstance(box.check(ToolCall(id="1", name="notion-API-post-page", raw_arguments=raw)), RefusedCall)


def test_arguments_that_do_not_fit_the_function_are_refused_in_shadow_mode() -> None:
    """The function's signature is always checked."""

    @tool(validation="shadow")
    def look_up(order: str, limit: int = 5) -> str:
        """Find an order."""
        return order

    box = Toolbox([look_up])
    raws = ('{"order": 5}', '{"order": "A", "page": 1}', '{"limit": 1}')
    one, two, three = (box.check(ToolCall(id="1", name="look_up", raw_arguments=raw)) for raw in raws)
    assert isinstance(one, CheckedCall)
    assert one.shadowed.startswith("/order: expected string; got 5")
    assert isinstance(two, RefusedCall)
    assert isinstance(three, RefusedCall)
    with pytest.raises(ConfigError, match="validation: expected 'enforce' or 'shadow', got 'off'"):
        make_tool("x", {"type": "object"}, validation="off")


def test_no_call_of_a_cut_off_reply_runs() -> None:
    """The output limit ended the reply. No call in it runs, not even one with complete arguments, and the answer says so."""
    box = tau("tau_airline")
    agent = Agent("clerk", "scripted:m-1", "You help.", tools=[box.get("get_user_details")])  # type: ignore[list-item]
    for raw in ('{"user_id": "mia', '{"user_id": "mia_li_3668"}'):
        call = ToolCall(id="1", name="get_user_details", raw_arguments=raw)
        found = read_reply(agent, claim_of("1"), reply_of(call, stop=Stop.LENGTH))
        assert found.invalid == ["get_user_details: cut_off"]
        assert found.calls == []
    found = read_reply(agent, claim_of("1"), reply_of(call.model_copy(update={"raw_arguments": '{"user_id": "mia'})))
    assert found.invalid == ["get_user_details: cut_off"]
    found = read_reply(agent, claim_of("1"), reply_of(call.model_copy(update={"raw_arguments": "{'user_id': 1}"})))
    assert found.invalid == ["get_user_details: bad_json"]


def test_every_provider_accepts_a_recorded_tool_or_says_why_not() -> None:
    """Anthropic and OpenAI accept every usable tool unchanged. For Gemini each rewritten part is reported."""
    specs = [one for key in (NOTION, FILES) for one in server(key, "").specs]
    for domain in ("tau_retail", "tau_airline"):
        specs += tau(domain).specs
    assert rules.check("anthropic", specs) == rules.check("openai", specs) == ()
    said = rules.check("gemini", specs)
    assert {one.rule for one in said} >= {"keyword", "reference", "null", "optional"}
    assert all(one.rewritten for one in said if one.rule != "optional")


def test_function_docs_in_an_unknown_dialect_are_refused() -> None:
    """All 1,248 function docs are refused for their types (`dict`, `float`), 438 also for their names. Each error is one line."""
    with gzip.open(DATA / "bfcl_function_docs.jsonl.gz", "rt") as lines:
        docs = [json.loads(line)["function"] for line in lines]
    assert len(docs) == 1_248
    for doc in docs:
        with pytest.raises(ConfigError, match=r"^schema [^\n]+$"):
            make_tool(doc["name"], doc["parameters"])
    misnamed = [doc["name"] for doc in docs if not doc["name"].replace("_", "a").isalnum()]
    assert len(misnamed) == 438
    for name in misnamed:
        with pytest.raises(ConfigError, match=r"^tool name [^\n]+: expected a letter or _, then letters, digits"):
            make_tool(name, {"type": "object"})


@pytest.mark.parametrize(
    ("dialect", "suite", "specification", "passed", "all_of"),
    [
        ("http://json-schema.org/draft-07/schema", "draft7", DRAFT7, 927, 927),
        (LATEST, "draft2020-12", DRAFT202012, 1_298, 1_299),
    ],
)
def test_the_standards_suite_passes_as_the_library_passes_it(
    dialect: str, suite: str, specification: Any, passed: int, all_of: int
) -> None:
    """The suite runs with its remote schemas, and with formats as annotations. One case fails: it needs another metaschema."""
    registry: Registry[Any] = Registry()
    for name, schema in load("json_schema_test_suite/remotes.json.gz").items():
        resource = Resource.from_contents(schema, default_specification=specification)
        registry = registry.with_resource(f"http://localhost:1234/{name}", resource)
    verdicts = []
    for name, groups in load(f"json_schema_test_suite/{suite}.json.gz").items():
        for group in () if name.startswith("optional/") else groups:
            for case in group["tests"]:
                effort = EffortBudget()
                effort.checkers = {}
                judge: Any = DRAFTS[dialect]
                valid = judge(group["schema"], registry=registry, format_checker=effort).is_valid(case["data"])
                verdicts.append(valid is case["valid"])
    assert (sum(verdicts), len(verdicts)) == (passed, all_of)
