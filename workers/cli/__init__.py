"""The command line: `midwatch`, or `python -m midwatch.workers.cli`. Each command has one file, imported when it runs."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code. The default is the command line of this process."""
    from midwatch.workers.cli.exits import run
    from midwatch.workers.cli.program import program

    return run(program, arguments)
