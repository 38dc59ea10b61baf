"""`make docs`: what is generated from the code, and whether it still matches: wire schemas, keyspace, command line.

`python -m midwatch.workers.generate` writes the files; with `--check` it writes nothing, names what is stale and exits with 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr, TypeAdapter

from midwatch.orchestration.keyspace import KEPT_S, PARTITIONS, Keyspace
from midwatch.schemas.deadletter import DeadLetterRecord, PoisonRecord
from midwatch.schemas.job import Job, JobResult, StartEnvelope
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
    "job": ("What is known of a job.", TypeAdapter(Job)),
    "job_result": ("How a job ended.", TypeAdapter(JobResult)),
    "message": ("One entry of a session's log.", MESSAGE),
    "trace": ("One entry of a job's trace.", TypeAdapter(TraceRecord)),
    "dead_letter": ("A dead letter.", TypeAdapter(DeadLetterRecord)),
    "poison": ("A message that could not become a step.", TypeAdapter(PoisonRecord)),
}
"""File name in `schemas/wire` -> what it describes, and the shape."""


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(
        "python -m midwatch.workers.generate", description="Write what is generated from the code."
    )
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 when something is stale")
    wanted = documents()
    stale = [name for name, text in wanted.items() if _read(root / name) != text]
    strangers = [name for name in _wire_files(root) if name not in wanted]
    if parser.parse_args(arguments).check:
        for name in (*stale, *strangers):
            print(f"{name} is stale; run `make docs`", file=sys.stderr)
        return 1 if stale or strangers else 0
    for name in stale:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[name], "utf-8")
        print(f"wrote {name}")
    for name in strangers:
        (root / name).unlink()
        print(f"removed {name}")
    return 0


def documents() -> dict[str, str]:
    """Every generated file: its path from the root of the repository, and its text."""
    wire = {f"{WIRE}/{name}.json": to_vendor_schema(name) for name in WIRE_SHAPES}
    return {**wire, "docs/keyspace.md": keyspace_page(), "docs/cli.md": cli_page()}


def to_vendor_schema(name: str) -> str:
    """The JSON Schema of one shape that crosses a process."""
    about, adapter = WIRE_SHAPES[name]
    schema = adapter.json_schema()
    if name == "step":  # the envelope's version stands beside the address, not in it
        version = {"const": 1, "default": 1, "title": "V", "type": "integer"}
        schema["properties"] = {"v": version, **schema["properties"]}
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps({"$schema": dialect, "$comment": about, **schema}, indent=2, ensure_ascii=False) + "\n"


def keyspace_page() -> str:
    """`docs/keyspace.md`."""
    lines = [
        "# Every Redis key",
        "",
        "<!-- Written by `make docs` from orchestration/keyspace.py; do not edit. -->",
        "",
        "`{prefix}` is `MIDWATCH_PREFIX`. `{p}` is the session's partition with its hash tag, such as `{mw07}`: one of "
        f"{PARTITIONS}, by `crc32(session id) % {PARTITIONS}`. All keys of a session and of its jobs lie in one "
        "partition, so every script that touches them is legal on Redis Cluster. `{gate}` is the coordinator's own tag, "
        "such as `{mwgate}`: a decision of it changes a downstream and a lineage at once.",
        "",
        f"*kept* is {KEPT_S // 86_400} days after the last write. A key that lives for ever says why.",
        "",
        "| key | type | holds | lives |",
        "|---|---|---|---|",
    ]
    rows = [f"| `{key.pattern}` | {key.type} | {_cell(key.holds)} | {key.ttl} |" for key in Keyspace.CATALOGUE]
    return "\n".join([*lines, *rows]) + "\n"


def cli_page() -> str:
    """`docs/cli.md`."""
    lines = ["# The command line", "", "<!-- Written by `make docs` from workers/cli; do not edit. -->", ""]
    lines += [
        "Data goes to stdout, prose to stderr. A listing is a table on a terminal and tab-separated values in a pipe; "
        "with `--json` it is one JSON document whose times are ISO 8601. `NO_COLOR` is honoured.",
        "",
        "## Exit codes",
        "",
        "| code | means |",
        "|---|---|",
        *(f"| {code.value} | {text} |" for code, text in MEANING.items()),
        "",
        "## Settings",
        "",
        "Read from the environment, then from `midwatch.toml` in the working directory, where they are named in lower "
        "case without `MIDWATCH_`.",
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


def _help_pages(context: click.Context) -> Iterator[tuple[str, str]]:
    """Path and help of a command, then of those under it."""
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
