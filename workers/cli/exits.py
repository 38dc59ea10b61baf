"""Exit codes, and the one line on stderr for every expected error."""

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
    Exit.OK: "Success. Replaying a job twice or cancelling a cancelled job is also a success: nothing was left to do.",
    Exit.FAILED: "The operation failed, or a check found a problem. Examples: the job of `--wait` did not complete; "
    "`doctor` found something unsafe.",
    Exit.USAGE: "The command line, a setting or an agent's declaration is wrong.",
    Exit.NOT_FOUND: "There is no such job, dead letter, session or downstream, or it has expired.",
    Exit.REFUSED: "The request was refused: the session is busy, the job is not parked, or the job has ended already.",
    Exit.UNREACHABLE: "Redis can't be reached, or refuses the command.",
    Exit.WAIT_TIMED_OUT: "`--wait` ran out of time. The job goes on.",
    Exit.PARKED: "The job of `--wait` is parked until a human decides.",
    Exit.INTERRUPTED: "Interrupted with Ctrl-C.",
}


def run(program: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code. An error that is not handled here is a bug and keeps its traceback."""
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
    except BrokenPipeError:  # the reader has closed the pipe, as in `midwatch jobs list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except Exception as error:
        known = code_of(error)
        if known is None:
            raise
        return _say(_describe(error), known)
    return code if isinstance(code, int) else Exit.OK


def code_of(error: Exception) -> Exit | None:
    """Return the exit code of an expected error; None for any other error.

    The error classes are taken from `sys.modules`. The code that raised the error has imported them. An import here would
    slow down every command that raises nothing.
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
    if redis is not None and isinstance(error, redis.RedisError):  # for example: the access list forbids the command
        return Exit.UNREACHABLE
    return None


def _describe(error: Exception) -> str:
    """Name the setting if the server refuses a command: its own words do not say which server it was."""
    redis = sys.modules.get("redis.exceptions")
    if redis is not None and isinstance(error, redis.RedisError):
        return (
            f"Redis refuses the command: {str(error).rstrip('.')}. Check MIDWATCH_REDIS_URL, and the rights of its user"
        )
    return str(error)


def _say(message: str, code: int) -> int:
    from midwatch.orchestration.protocol.passwords import hide_passwords

    click.echo(f"midwatch: {printable_lines(hide_passwords(message))}", err=True)
    return code
