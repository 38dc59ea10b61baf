"""`make docs`: generate the wire schemas, the keyspace page and the command line page from the code.

`python -m midwatch.workers.generate` writes the files. With `--check` it writes nothing. It then prints the stale files and
exits with 1 if there are any.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr, TypeAdapter

from midwatch.orchestration.client.job_result import JobResult
from midwatch.orchestration.dialects.limits import LIMITS
from midwatch.orchestration.dialects.rule import Rule
from midwatch.orchestration.dialects.tables import RULES, STRICT
from midwatch.orchestration.keyspace import KEPT_S, PARTITIONS, Keyspace
from midwatch.schemas.contract import WIRE_VERSION
from midwatch.schemas.deadletter import DeadLetterRecord, PoisonRecord
from midwatch.schemas.job import Job, StartEnvelope
from midwatch.schemas.message import MESSAGE
from midwatch.schemas.step import StepRef
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.cli.environment import source_of
from midwatch.workers.cli.exits import MEANING
from midwatch.workers.cli.program import program
from midwatch.workers.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
WIRE = "schemas/wire"
HELP_COLUMNS = 100

WIRE_SHAPES: dict[str, tuple[str, TypeAdapter[Any]]] = {
    "start": ("The one argument of the Celery task midwatch.start.", TypeAdapter(StartEnvelope)),
    "step": ("The keyword arguments of the Celery tasks midwatch.model and midwatch.tool.", TypeAdapter(StepRef)),
    "job": ("The stored record of a job.", TypeAdapter(Job)),
    "job_result": ("How a job ended.", TypeAdapter(JobResult)),
    "message": ("One entry of a session's log.", MESSAGE),
    "trace": ("One entry of a job's trace.", TypeAdapter(TraceRecord)),
    "dead_letter": ("A dead letter.", TypeAdapter(DeadLetterRecord)),
    "poison": ("A message that could not become a step.", TypeAdapter(PoisonRecord)),
}
"""File name in `schemas/wire` -> its description, and its type."""


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Write or check the files. Returns the exit code."""
    parser = argparse.ArgumentParser("python -m midwatch.workers.generate", description="Generate files from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is stale")
    wanted = documents()
    stale = [name for name, text in wanted.items() if _read(root / name) != text]
    obsolete = [name for name in _wire_files(root) if name not in wanted]
    if parser.parse_args(arguments).check:
        for name in (*stale, *obsolete):
            print(f"{name} is stale; run `make docs`", file=sys.stderr)
        return 1 if stale or obsolete else 0
    for name in stale:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[name], "utf-8")
        print(f"wrote {name}")
    for name in obsolete:
        (root / name).unlink()
        print(f"removed {name}")
    return 0


def documents() -> dict[str, str]:
    """Return path -> text of every generated file. Paths start at the root of the repository."""
    wire = {f"{WIRE}/{name}.json": wire_schema(name) for name in WIRE_SHAPES}
    return {
        **wire,
        "docs/keyspace.md": keyspace_page(),
        "docs/cli.md": cli_page(),
        "docs/vendors.md": vendors_page(),
    }


def wire_schema(name: str) -> str:
    """Return the JSON Schema of one type that is sent between processes."""
    about, adapter = WIRE_SHAPES[name]
    schema = adapter.json_schema()
    if name == "step":  # the version is part of the envelope and not of StepRef
        version = {"default": 1, "maximum": WIRE_VERSION, "minimum": 1, "title": "V", "type": "integer"}
        schema["properties"] = {"v": version, **schema["properties"]}
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps({"$schema": dialect, "$comment": about, **schema}, indent=2, ensure_ascii=False) + "\n"


def keyspace_page() -> str:
    """Return the text of `docs/keyspace.md`."""
    lines = [
        "# Every Redis key",
        "",
        "<!-- Written by `make docs` from orchestration/key_catalogue.py; do not edit. -->",
        "",
        "`{prefix}` is `MIDWATCH_PREFIX`. `{p}` is the session's partition with its hash tag, such as `{mw07}`: one of "
        f"{PARTITIONS}, by `crc32(session id) % {PARTITIONS}`. All keys of a session and of its jobs are in one "
        "partition, so every script that uses them works on Redis Cluster. `{gate}` is the coordinator's hash tag, "
        "such as `{mwgate}`. One decision of the coordinator changes a downstream and a lineage together.",
        "",
        "Different ids have different keys. An id or a model's name may hold colons. If it ends like the key of a part, such "
        "as the session `x:log`, a `~` is added to it in its keys: `…:session:x:log~`. Every other id is part of its keys "
        "unchanged. An id with braces, blanks, globs or control characters is refused.",
        "",
        f"*kept* means {KEPT_S // 86_400} days after the last write. A key without a time to live has a reason instead.",
        "",
        "| key | type | holds | lives |",
        "|---|---|---|---|",
    ]
    rows = [f"| `{key.pattern}` | {key.type} | {_cell(key.holds)} | {key.ttl} |" for key in Keyspace.CATALOGUE]
    return "\n".join([*lines, *rows]) + "\n"


def cli_page() -> str:
    """Return the text of `docs/cli.md`."""
    lines = ["# The command line", "", "<!-- Written by `make docs` from workers/cli; do not edit. -->", ""]
    lines += [
        "Data goes to stdout, messages go to stderr. A listing is a table on a terminal and tab-separated values in a "
        "pipe. With `--json` it is one JSON document with times in ISO 8601. `NO_COLOR` switches colours off.",
        "",
        "## Exit codes",
        "",
        "| code | means |",
        "|---|---|",
        *(f"| {code.value} | {text} |" for code, text in MEANING.items()),
        "",
        "## Settings",
        "",
        "Settings come from the environment, then from `midwatch.toml` in the working directory. In the file their names "
        "are in lower case and without `MIDWATCH_`.",
        "",
        "| variable | default | |",
        "|---|---|---|",
        *_setting_rows(),
        "",
        "## Commands",
    ]
    context = program.make_context("midwatch", [], resilient_parsing=True, terminal_width=HELP_COLUMNS, color=False)
    for page in _help_pages(context):
        path, text = page
        lines += ["", f"### {path}", "", "```text", *(line.rstrip() for line in text.splitlines()), "```"]
    return "\n".join(lines) + "\n"


def vendors_page() -> str:
    """Return the text of `docs/vendors.md`."""
    lines = [
        "# What each vendor takes",
        "",
        "<!-- Written by `make docs` from orchestration/dialects; do not edit. -->",
        "",
        "These are the published limits on tools and schemas. `Agent(...)` checks them for its model's provider and for the "
        "providers of its fallback models. *refused* is a `ConfigError`. *rewritten* and *reported* are in "
        "`agent.schema_differences`, and `midwatch doctor` shows them. The ladder uses strict mode. Answers with an "
        "`output_schema` use it, too. [Validation](validation.md#what-does-each-provider-accept) explains how.",
    ]
    for provider in RULES:
        lines += ["", f"## {provider}", "", "| limit | effect | source |", "|---|---|---|"]
        for limit in LIMITS.get(provider, ()):
            lines.append(f"| at most {limit.most:,} {_cell(limit.what)} | {limit.effect} | {_links(limit.source)} |")
        lines += ["", "| construct | effect | source |", "|---|---|---|"]
        lines += _rule_rows(RULES[provider], "")
        lines += _rule_rows(STRICT.get(provider, ()), "strict mode: ")
    return "\n".join(lines) + "\n"


def _rule_rows(rules: Iterable[Rule], mode: str) -> Iterator[str]:
    for rule in rules:
        yield f"| {mode}{_cell(rule.about)} | {rule.effect}: {_cell(rule.says)} | {_links(rule.source)} |"


def _links(source: str) -> str:
    return ", ".join(
        f"[{one.removeprefix('https://').partition('/')[0]}]({one})" if one.startswith("https://") else one
        for one in source.split(", ")
    )


def _help_pages(context: click.Context) -> Iterator[tuple[str, str]]:
    """Yield path and help text of a command, then of its subcommands."""
    yield context.command_path, context.command.get_help(context)
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            if command is not None:
                yield from _help_pages(command.make_context(name, [], parent=context, resilient_parsing=True))


def _setting_rows() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        value = field.default
        shown = "" if value is None or value == () or isinstance(value, SecretStr) else f"`{json.dumps(value)}`"
        yield f"| `{source_of(name)}` | {shown} | {_cell(field.description or '')} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _read(path: Path) -> str | None:
    return path.read_text("utf-8") if path.is_file() else None


def _wire_files(root: Path) -> list[str]:
    return sorted(f"{WIRE}/{path.name}" for path in (root / WIRE).glob("*.json"))


if __name__ == "__main__":
    sys.exit(main())
