"""Groups of commands. `LazyGroup` imports a command when it runs, and makes its help page from a table."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

import click


@dataclass(frozen=True)
class LazyCommand:
    """A command that is imported on demand."""

    target: str
    """`module:attribute` of the click command."""
    help: str
    """The first sentence of the command's help text. A test compares the two."""

    def load(self) -> click.Command:
        """Import the command."""
        module, _, attribute = self.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.target}: expected a click command, got {type(command).__name__}")
        return command


class LazyGroup(click.Group):
    """Commands by section, in the order in which a new user needs them."""

    def __init__(self, sections: Mapping[str, Mapping[str, LazyCommand]], **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]  # passed on to click.Group
        self.sections = sections
        self.table = {name: lazy for commands in sections.values() for name, lazy in commands.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names without importing the commands."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        lazy = self.table.get(cmd_name)
        return lazy.load() if lazy else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Suggestions for a mistyped name come from the table, because click knows no command yet."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=self.table, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, section by section."""
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, lazy.help) for name, lazy in commands.items()])


class OrderedGroup(click.Group):
    """Commands in the order of their definition: commands that read come first, commands that act come last."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of definition."""
        return list(self.commands)
