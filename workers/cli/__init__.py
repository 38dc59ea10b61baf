"""The command line: `midwatch`, or `python -m midwatch.workers.cli`. One file per command, imported when it is run."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default the process's own, and return its exit code."""
    from midwatch.workers.cli.exits import run
    from midwatch.workers.cli.program import program

    return run(program, arguments)
