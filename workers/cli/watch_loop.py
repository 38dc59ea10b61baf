"""`--watch`: read and print again every second until Ctrl-C, on a terminal or as lines of JSON."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from midwatch.workers.views.output import print_json_line

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY_S = 1.0


def print_lines(look: Callable[[], object]) -> None:
    """Print one line of JSON each time. While a server restarts, no lines are printed.

    An outage of a minute ends the loop with its error.

    Raises:
        StoreUnavailable: Redis could not be reached for a minute, or at the first read.

    """
    from midwatch.orchestration.client.patience import read_patiently

    state = look()
    while True:
        print_json_line(state)
        time.sleep(EVERY_S)
        state = read_patiently(look)


def draw(look: Callable[[], RenderableType]) -> None:
    """Draw each time in the same place.

    An outage does not end the loop, because people watch during an outage. The last frame stays, with a message below.

    Raises:
        StoreUnavailable, RedisError: the first read failed.

    """
    from redis.exceptions import RedisError
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from midwatch.orchestration.errors import StoreUnavailable
    from midwatch.workers.cli.tables import console

    frame = look()
    with Live(frame, console=console(), auto_refresh=False) as live:
        while True:
            time.sleep(EVERY_S)
            try:
                frame = look()
                live.update(frame, refresh=True)
            except (StoreUnavailable, RedisError):
                live.update(Group(frame, Text("Redis does not answer; this is the last state", "red")), refresh=True)
