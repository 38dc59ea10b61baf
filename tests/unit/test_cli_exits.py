"""Exit codes, and the messages on stderr."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest

from midwatch.orchestration import errors
from midwatch.schemas.failure import Failure
from midwatch.workers.cli.exits import MEANING, Exit, code_of, run

FAILURE = Failure(kind="internal", detail="x")

CODES = {
    errors.MidwatchError: 1,
    errors.ConfigError: 2,
    errors.UnknownAgent: 2,
    errors.Refused: 4,
    errors.SessionBusy: 4,
    errors.RunInsideTool: 4,
    errors.KeyReused: 4,
    errors.WrongSession: 4,
    errors.NotFound: 3,
    errors.JobTimeout: 6,
    errors.StoreUnavailable: 5,
    errors.BrokerUnavailable: 5,
    errors.NoOutput: 1,
    errors.RecordLost: 1,
    errors.UnreadableRecord: 1,
    errors.ModelError: 1,
    errors.ToolError: 1,
    errors.ToolFailed: 1,
    errors.LeaseLost: 1,
}


def every_error(root: type[Exception] = errors.MidwatchError) -> set[type[Exception]]:
    """Return all exceptions of `midwatch.orchestration.errors`."""
    below = {kind for kind in root.__subclasses__() if kind.__module__ == errors.__name__}
    return {root}.union(*(every_error(kind) for kind in below))


def command(action):
    """Return a program with one command."""

    @click.command()
    def program() -> None:
        action()

    return program


def raising(error):
    """Return a program that raises `error`."""

    def action():
        raise error

    return command(action)


def test_every_error_of_the_package_has_an_exit_code():
    """A new exception needs an entry in CODES."""
    assert every_error() == set(CODES)


@pytest.mark.parametrize("kind", CODES, ids=lambda kind: kind.__name__)
def test_an_error_ends_with_its_code_and_one_line(kind, capsys):
    """There is no traceback, and nothing on stdout."""
    made = {
        errors.ModelError: (FAILURE,),
        errors.ToolFailed: (FAILURE,),
        errors.UnreadableRecord: ("job x", "damaged"),
        errors.KeyReused: ("job-1", "11aa", "22bb"),
        errors.NoOutput: ("job-1", "cancelled", None, "it was cancelled"),
    }
    error = kind(*made.get(kind, ("it can't be; do this",)))
    assert run(raising(error), []) == CODES[kind]
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("midwatch: ")
    assert out.err.count("\n") == 1


def test_a_bug_keeps_its_traceback():
    """An unexpected error is not presented as a user's mistake."""
    assert code_of(ZeroDivisionError()) is None
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()), [])


def test_ctrl_c_is_130():
    """Shells expect this code."""
    assert run(raising(KeyboardInterrupt()), []) == 130


def test_the_exit_code_of_a_command_is_returned():
    """A command may choose its code. The default is 0."""
    assert run(raising(click.exceptions.Exit(Exit.PARKED)), []) == 7
    assert run(command(lambda: None), []) == 0


def test_a_wrong_command_line_is_2_with_its_usage(capsys):
    """Click prints its message on stderr."""
    assert run(command(lambda: None), ["--no-such-option"]) == 2
    assert "Usage:" in capsys.readouterr().err


def test_an_error_message_cant_steer_the_terminal(capsys):
    """Control characters in a message are printed as visible text."""
    run(raising(errors.Refused("no \x1b[2J")), [])
    assert capsys.readouterr().err == "midwatch: no \\x1b[2J\n"


@pytest.mark.process
def test_a_closed_pipe_gives_no_traceback():
    """`midwatch jobs list | head` ends quietly. The test needs a second process, because it closes a pipe."""
    code = (
        "import sys; from midwatch.workers.cli.exits import run; import click\n"
        "program = click.Command('x', callback=lambda: [click.echo('line ' * 1000) for _ in range(1000)])\n"
        "sys.exit(run(program, []))"
    )
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    os.read(reading, 100)
    os.close(reading)
    _, stderr = process.communicate(timeout=30)
    assert stderr == b""
    assert process.returncode == 1


def test_every_code_is_explained():
    """The table in docs/cli.md is complete."""
    assert set(MEANING) == set(Exit)


def test_a_command_that_redis_refuses_names_the_setting(capsys):
    """The server's own words are about a database or a right. The reader must know which server is meant."""
    import redis.exceptions

    assert run(raising(redis.exceptions.ResponseError("DB index is out of range")), []) == Exit.UNREACHABLE
    said = capsys.readouterr().err
    assert said.startswith("midwatch: Redis refuses the command: DB index is out of range. Check MIDWATCH_REDIS_URL")
