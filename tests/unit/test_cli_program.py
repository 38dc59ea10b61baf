"""The root of the command line: its table against the commands themselves, and what is generated from it."""

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
from midwatch.workers.cli.lazy_group import Lazy
from midwatch.workers.cli.program import program
from midwatch.workers.settings import Settings


def every_command(context: click.Context | None = None) -> dict[str, click.Command]:
    """All commands by path, groups included."""
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
def test_the_table_says_what_the_command_says(name):
    """`midwatch --help` imports no command, so its texts are written twice; they must not drift apart."""
    lazy = program.table[name]
    command = lazy.load()
    assert command.name == name
    assert (command.help or "").partition("\n")[0] == lazy.help


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_explains_itself(path):
    """One sentence at the least, that ends; no option without a help text but where its values say it."""
    command = COMMANDS[path]
    assert (command.help or "").partition("\n")[0].endswith(".")
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help or isinstance(option.type, click.Choice), f"{path}: {option.name}"


def test_every_listing_takes_json():
    """Whatever lists or shows can be read by a program."""
    silent = {path for path, command in COMMANDS.items() if not any(p.name == "as_json" for p in command.params)}
    assert not {path for path in silent if path.endswith((" list", " show", " trace", " settings", " doctor"))}


def test_a_mistyped_command_is_told_the_one_that_was_meant(capsys):
    """Exit code 2, and a suggestion."""
    assert main(["jbos"]) == 2
    assert "jobs" in capsys.readouterr().err


def test_a_table_entry_that_is_no_command_is_a_bug_that_says_so():
    """A wrong target fails when it is loaded, by name."""
    with pytest.raises(TypeError, match="expected a click command"):
        Lazy("midwatch.workers.cli:main", "").load()


def test_what_is_generated_is_up_to_date(capsys):
    """Wire schemas, keyspace page and this command line's page: `make docs` was run."""
    assert generate.main(["--check"]) == 0, capsys.readouterr().err


def test_the_check_names_what_is_stale_and_writing_mends_it(tmp_path, capsys):
    """Missing files, changed files and files that nothing generates any more."""
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
    """Nothing is left for people to find out."""
    page = generate.cli_page()
    assert all(f"### {path}\n" in page for path in COMMANDS)
    assert all(f"`{source_of(name)}`" in page for name in Settings.model_fields)


@pytest.mark.parametrize("name", generate.WIRE_SHAPES)
def test_wire_schemas_are_valid_json_schema(name):
    """A producer in another language may check against them."""
    jsonschema.Draft202012Validator.check_schema(json.loads(generate.wire_schema(name)))


def test_the_step_schema_describes_what_is_really_sent():
    """Address and version, and nothing else."""
    schema = json.loads(generate.wire_schema("step"))
    sent = write_message.envelope(StepRef(job_id="job-1", session_id="s", step="3.0"))
    jsonschema.validate(sent, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**sent, "extra": 1}, schema)
