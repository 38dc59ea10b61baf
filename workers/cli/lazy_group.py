"""Groups of commands: one that imports a command when it is run, and makes its help from a table without it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

import click


@dataclass(frozen=True)
class Lazy:
    """A command that is not imported yet."""

    target: str
    """`module:attribute` of the click command."""
    help: str
    """The first sentence of its help; a test holds the two together."""

    def load(self) -> click.Command:
        """Import it."""
        module, _, attribute = self.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.target}: expected a click command, got {type(command).__name__}")
        return command


class LazyGroup(click.Group):
    """Commands by section, in the order of the table: the order in which somebody new meets them."""

    def __init__(self, sections: Mapping[str, Mapping[str, Lazy]], **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]  # what `click.Group` takes, passed on
        self.sections = sections
        self.table = {name: lazy for commands in sections.values() for name, lazy in commands.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, without an import."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        lazy = self.table.get(cmd_name)
        return lazy.load() if lazy else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but a mistyped name is compared with the table, for nothing is registered yet."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=self.table, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, section by section."""
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, lazy.help) for name, lazy in commands.items()])


class InOrder(click.Group):
    """Commands in the order in which they are written, not of the alphabet: reading before acting."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, first declared first."""
        return list(self.commands)
