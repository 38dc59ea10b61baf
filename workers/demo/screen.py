"""The demo on a terminal: a progress bar above a line of counts, and at the end a summary with the next steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from midwatch.schemas.job import Job, JobStatus

if TYPE_CHECKING:
    from midwatch.workers.demo.account import Account
    from midwatch.workers.demo.desk.tickets import CheckReport
    from midwatch.workers.demo.stage import Stage

MOST_FAULTS = 10
"""Most tickets that the summary names."""


class Screen:
    """Prints messages and progress on stderr, so that stdout holds only the output of `--json`."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._progress: Progress | None = None
        self._counts = Text(no_wrap=True, overflow="ellipsis")
        self._shown = 0

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(f"[dim]{escape(text)}[/]", soft_wrap=True, highlight=False)

    @contextmanager
    def progress(self, jobs: int) -> Iterator[None]:
        """Show the progress bar and the counts while the block runs.

        The counts have their own line. In one line with the bar, a terminal of 80 columns had no room for the completed jobs.
        In a pipe, a line is printed for each tenth of the jobs.
        """
        columns = (TextColumn("[bold]jobs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self._console)
        self._progress.add_task("jobs", total=jobs)
        with Live(Group(self._progress, self._counts), console=self._console) if self._is_live else nullcontext():
            yield

    @property
    def _is_live(self) -> bool:
        return self._console.is_terminal and self._console.is_interactive

    def update(self, account: Account, jobs: Sequence[Job], seconds: float) -> None:
        """Show new counts."""
        if self._progress is None:
            return
        states = Counter(job.status for job in jobs)
        ended = sum(count for status, count in states.items() if status.ended)
        dead = f"  [red]{account.dead_lettered} dead letters[/]" if account.dead_lettered else ""
        counts = Text.from_markup(
            f"[cyan]{states[JobStatus.RUNNING]} running[/]  [yellow]{account.failed_calls} calls failed[/]  "
            f"[magenta]{account.invalid_calls_caught} bad calls caught[/]  [red]{account.worker_kills} workers killed[/]{dead}"
        )
        if self._is_live:
            self._counts.plain = ""
            self._counts.append_text(counts)
            self._progress.update(self._progress.task_ids[0], completed=ended)
        elif ended * 10 // max(1, account.submitted) > self._shown:
            self._shown = ended * 10 // account.submitted
            self.say(f"{ended} of {account.submitted} jobs, {seconds:.0f} s: {counts.plain}")

    def print_summary(self, account: Account, report: CheckReport, flower_url: str) -> None:
        """Print the account and the next steps."""
        table = Table(title="Summary", title_style="bold", show_header=False, min_width=56)
        table.add_column(style="dim")
        table.add_column(justify="right", style="bold")
        table.add_column()
        good, bad = "[green]✓[/]", "[red]✗[/]"
        missing = account.submitted - account.completed - account.dead_lettered
        table.add_row("jobs submitted", str(account.submitted), "")
        table.add_row("completed", str(account.completed), good if account.completed == account.submitted else "")
        table.add_row("dead letters, to replay", str(account.dead_lettered), bad if account.dead_lettered else "")
        table.add_row("lost", str(max(account.lost, missing)), good if missing == 0 and not account.lost else bad)
        table.add_section()
        table.add_row("invalid tool calls caught before they ran", str(account.invalid_calls_caught), good)
        table.add_row("model calls that failed, and were repeated", str(account.failed_calls), good)
        table.add_row("retries that counted against max_retries", str(account.retries), "")
        table.add_row("workers killed with kill -9", str(account.worker_kills), good)
        table.add_row(
            "refunds and other effects applied twice",
            str(account.duplicate_effects),
            bad if account.duplicate_effects else good,
        )
        table.add_row("tickets with a wrong outcome", str(len(report.wrong)), bad if report.wrong else good)
        table.add_section()
        table.add_row("seconds", f"{account.seconds:.1f}", "")
        self._console.print(table)
        self._print_faults(account, report)
        self._console.print(Panel(_next_steps(flower_url), title="Next steps", expand=False))

    def _print_faults(self, account: Account, report: CheckReport) -> None:
        """Print which tickets went wrong, and why."""
        for wrong in report.wrong[:MOST_FAULTS]:
            self._console.print(f"[red]{escape(wrong)}[/]")
        for entry in account.not_completed[:MOST_FAULTS]:
            about = f"{entry['ticket']}: job {entry['job_id']} is {entry['status']}: {entry['why']}"
            self._console.print(f"[red]{escape(about)}[/]", soft_wrap=True)
        if (more := len(account.not_completed) - MOST_FAULTS) > 0:
            self._console.print(f"[red]and {more} more[/]")

    def print_dev(self, stage: Stage, models: str, file: str) -> None:
        """Print the running processes, and the commands to try. `file` holds the address of the server."""
        lines = [
            f"[bold]Flower[/]    {stage.flower_url}",
            f"[bold]server[/]    {stage.server.url}, also in {escape(file)}",
            f"[bold]models[/]    {escape(models)}",
            f"[bold]logs[/]      {stage.folder / 'logs'}",
            "",
            "In another terminal, in this folder (elsewhere, set MIDWATCH_REDIS_URL to the server):",
            "  midwatch submit AGENT 'your input' --wait",
            "  midwatch jobs list",
        ]
        self._console.print(Panel("\n".join(lines), title="Midwatch is running; Ctrl-C ends it", expand=False))


def _next_steps(flower_url: str) -> str:
    lines = (
        [f"Flower: {flower_url} (Ctrl-C ends the demo)"]
        if flower_url
        else ["midwatch demo --keep     keeps running: see jobs and dead letters in Flower"]
    )
    lines += [
        "midwatch dev             runs your agents: set MIDWATCH_AGENTS=your_module",
        "examples/quickstart.py   an agent in twelve lines",
        "docs/architecture.md     how a job survives a kill -9",
    ]
    return "\n".join(lines)
