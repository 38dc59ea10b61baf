"""The root of the command line: its table, the commands, and the generated page."""

from __future__ import annotations

import json

import click
import jsonschema
import pytest

from midwatch.schemas.step import StepRef
from midwatch.workers import generate
from midwatch.workers.celery_app import write_message
from midwatch.workers.cli import main
from midwatch.workers.cli.environment import source_of
from midwatch.workers.cli.lazy_group import LazyCommand
from midwatch.workers.cli.program import program
from midwatch.workers.settings import Settings


def every_command(context: click.Context | None = None) -> dict[str, click.Command]:
    """Return path -> command for all commands and groups."""
    context = context or program.make_context("midwatch", [], resilient_parsing=True)
    found = {context.command_path: context.command}
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            found |= every_command(command.make_context(name, [], parent=context, resilient_parsing=True))
    return found


COMMANDS = every_command()


@pytest.mark.parametrize("name", program.table)
def test_the_table_has_the_help_text_of_the_command(name):
    """`midwatch --help` imports no command, so each text is written twice. Both must be the same."""
    lazy = program.table[name]
    command = lazy.load()
    assert command.name == name
    assert (command.help or "").partition("\n")[0] == lazy.help


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_has_a_help_text(path):
    """A command's help begins with a sentence. An option has a help text, or a list of choices."""
    command = COMMANDS[path]
    assert (command.help or "").partition("\n")[0].endswith(".")
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help or isinstance(option.type, click.Choice), f"{path}: {option.name}"


def test_every_listing_takes_json():
    """A program can read the output of every command that lists or shows something."""
    silent = {path for path, command in COMMANDS.items() if not any(p.name == "as_json" for p in command.params)}
    assert not {path for path in silent if path.endswith((" list", " show", " trace", " settings", " doctor"))}


def test_a_mistyped_command_gives_a_suggestion(capsys):
    """The exit code is 2."""
    assert main(["jbos"]) == 2
    assert "jobs" in capsys.readouterr().err


def test_a_table_entry_that_is_not_a_command_raises():
    """The error names the wrong target."""
    with pytest.raises(TypeError, match="expected a click command"):
        LazyCommand("midwatch.workers.cli:main", "").load()


def test_generated_files_are_up_to_date(capsys):
    """Wire schemas, the keyspace page and the command line page match the code. If not, run `make docs`."""
    assert generate.main(["--check"]) == 0, capsys.readouterr().err


def test_the_check_names_stale_files_and_writing_updates_them(tmp_path, capsys):
    """Missing files, changed files and obsolete files are stale."""
    assert generate.main([], tmp_path) == 0
    assert generate.main(["--check"], tmp_path) == 0
    (tmp_path / "docs/cli.md").write_text("old")
    (tmp_path / "schemas/wire/gone.json").write_text("{}")
    assert generate.main(["--check"], tmp_path) == 1
    err = capsys.readouterr().err
    assert "docs/cli.md is stale" in err
    assert "schemas/wire/gone.json is stale" in err
    assert generate.main([], tmp_path) == 0
    assert generate.main(["--check"], tmp_path) == 0


def test_the_page_has_every_command_and_every_setting():
    """docs/cli.md is complete."""
    page = generate.cli_page()
    assert all(f"### {path}\n" in page for path in COMMANDS)
    assert all(f"`{source_of(name)}`" in page for name in Settings.model_fields)


@pytest.mark.parametrize("name", generate.WIRE_SHAPES)
def test_wire_schemas_are_valid_json_schema(name):
    """A producer in another language may validate with them."""
    jsonschema.Draft202012Validator.check_schema(json.loads(generate.wire_schema(name)))


def test_the_step_schema_matches_the_message():
    """A message holds the step's ids and the version. A field of a later release is allowed; another version is not."""
    schema = json.loads(generate.wire_schema("step"))
    sent = write_message.envelope(StepRef(job_id="job-1", session_id="s", step="3.0"))
    jsonschema.validate(sent, schema)
    jsonschema.validate({**sent, "of_a_later_release": 1}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**sent, "v": 2}, schema)
