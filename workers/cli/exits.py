"""How a command line ends: exit codes, and one line on stderr for everything that is no bug."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import IntEnum

import click

from midwatch.workers.views.output import printable_lines


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNREACHABLE = 5
    WAIT_TIMED_OUT = 6
    PARKED = 7
    INTERRUPTED = 130


MEANING = {
    Exit.OK: "Fine. A second replay, or a cancel of a cancelled job, is fine too: there was nothing left to do.",
    Exit.FAILED: "The operation failed, or a check found something: a job that was waited for ended otherwise than "
    "completed, `doctor` found something unsafe.",
    Exit.USAGE: "The command line, a setting or an agent's declaration is wrong.",
    Exit.NOT_FOUND: "No such job, dead letter, session or downstream, or its retention is over.",
    Exit.REFUSED: "Understood and refused: the session is busy, the job is not parked, it has ended already.",
    Exit.UNREACHABLE: "Redis can't be reached, or does not take the command.",
    Exit.WAIT_TIMED_OUT: "`--wait` ran out of time. The job goes on.",
    Exit.PARKED: "The job that was waited for is parked until a human decides.",
    Exit.INTERRUPTED: "Interrupted with Ctrl-C.",
}


def run(program: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code. What is not foreseen here is a bug, and keeps its traceback."""
    try:
        code = program.main(
            args=None if arguments is None else list(arguments), prog_name="midwatch", standalone_mode=False
        )
        sys.stdout.flush()
    except click.UsageError as error:
        error.show()
        return Exit.USAGE
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except BrokenPipeError:  # `midwatch jobs list | head`: whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except Exception as error:
        known = code_of(error)
        if known is None:
            raise
        return _say(str(error), known)
    return code if isinstance(code, int) else Exit.OK


def code_of(error: Exception) -> Exit | None:
    """The exit code of an error that a user can do something about; None for anything else.

    The classes are looked up where they were loaded: whoever raised one has loaded them, and importing them here would
    cost every command that raises nothing.
    """
    errors = sys.modules.get("midwatch.orchestration.errors")
    redis = sys.modules.get("redis.exceptions")
    if errors is not None and isinstance(error, errors.MidwatchError):
        by_class = (
            (errors.NotFound, Exit.NOT_FOUND),
            (errors.Refused, Exit.REFUSED),
            (errors.StoreUnavailable, Exit.UNREACHABLE),
            (errors.JobTimeout, Exit.WAIT_TIMED_OUT),
            (errors.ConfigError, Exit.USAGE),
        )
        return next((code for kind, code in by_class if isinstance(error, kind)), Exit.FAILED)
    if redis is not None and isinstance(error, redis.RedisError):  # not allowed by its access list, for example
        return Exit.UNREACHABLE
    return None


def _say(message: str, code: int) -> int:
    click.echo(f"midwatch: {printable_lines(message)}", err=True)
    return code
