"""The state of a downstream as text: a row of `midwatch gate status`, a card, JSON, or a frame of `--watch`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from midwatch.workers.cli.assignments import format_value
from midwatch.workers.cli.tables import Column, lay_out
from midwatch.workers.views.output import count, document, duration, iso, pluralize

if TYPE_CHECKING:
    from rich.console import RenderableType

    from midwatch.schemas.limits import DownstreamStatus, Lane, Limits

COLUMNS = (
    Column("DOWNSTREAM"),
    Column("STATE"),
    Column("RATE", "right"),
    Column("LEVEL", "right"),
    Column("LIVE", "right"),
    Column("WAITING", "right"),
    Column("RETRIES", "right", "spare"),
    Column("WHY", kind="long"),
)

FULL = 0.995
"""A rate factor from this one on is shown as 100 %."""

LANES: dict[Lane, str] = {
    "high": "high",
    "high_first": "high, of new jobs",
    "rest": "others",
    "retry": "retries",
    "rest_first": "others, of new jobs",
    "replay": "replays",
}
"""Lane -> its name in a card, in the order in which calls leave the lanes."""

RATES = ("requests", "input_tokens", "output_tokens", "tokens")


def state(status: DownstreamStatus) -> str:
    """The state in one word: the first that applies."""
    if status.blocked_ms > 0:
        return "blocked"
    if status.paused_ms > 0:
        return "paused"
    if status.breaker != "closed":
        return status.breaker
    if status.in_trouble:
        return "trouble"
    return "slowed" if status.braked or (status.limits and status.rate_factor < FULL) else "ok"


def row(status: DownstreamStatus, now_ms: int) -> tuple[str, ...]:
    """A row of the table."""
    return (
        status.name,
        state(status),
        _percent(status.rate_factor) if status.limits else "",
        _tightest(status),
        count(status.live),
        count(status.waiters),
        f"{status.retries_left:.0f}",
        why(status, now_ms),
    )


def why(status: DownstreamStatus, now_ms: int) -> str:
    """Why calls wait, and until when."""
    reasons = list(_reasons(status, now_ms))
    if not reasons and not status.limits:
        return "no limit is set, and its provider has named none"
    return "; ".join(reasons)


def _reasons(status: DownstreamStatus, now_ms: int) -> Iterator[str]:
    if status.blocked_ms > 0:
        yield f"for {duration(status.blocked_ms)} more: {status.blocked_reason}"
    if status.paused_ms > 0:
        yield f"paused until {_moment(status.paused_until_ms, now_ms)}, {duration(status.paused_ms)} more"
    if status.breaker == "open":
        yield f"breaker open, probes in {duration(status.open_ms)}"
    elif status.breaker == "half_open":
        yield f"breaker half open, {pluralize(status.probes, 'probe')} under way"
    elif status.in_trouble and not status.paused_ms:
        yield "no call has been answered since the last failures: calls start one by one until one is answered"
    if status.sick:
        total = status.window_ok + status.window_failed
        yield f"{status.window_failed} of its last {total} calls failed: its retry budget applies"
    if status.braked:
        yield "fewer calls are admitted for a while"
    if status.guessed:
        yield "its request limit is guessed from 429s: set one"


def card(status: DownstreamStatus, limits: Limits, now_ms: int) -> list[tuple[str, str]]:
    """Everything about a downstream, as names and values."""
    applies = "now" if status.sick else "only while it fails"
    return [
        ("downstream", status.name),
        ("state", state(status)),
        ("why", why(status, now_ms)),
        ("rate", f"{_percent(status.rate_factor)} of its limits" if status.limits else ""),
        *((_words(each), _bucket(each, status, limits)) for each in RATES if each in status.limits),
        ("waiting", _lines(status)),
        ("live", pluralize(status.live, "call") + (f", of them {pluralize(status.probes, 'probe')}" if status.probes else "")),
        ("breaker", f"{_words(status.breaker)}; recently {status.window_ok:,} calls succeeded, {status.window_failed:,} failed"),
        ("retries left", f"{status.retries_left:.1f}; this budget applies {applies}"),
        ("admitted", f"{status.admitted:,}, of them {pluralize(status.retried, 'retry', 'retries')}"),
        ("not admitted", f"{status.waited:,} had to wait, {status.denied:,} were denied"),
        ("came back", f"{status.ok:,} ok, {status.failed:,} failed, {status.throttled:,} throttled, {status.lost:,} lost"),
        ("a call", _usual(status)),
        ("limits", _configured(limits)),
        ("set", iso(status.version) if status.version else ""),
        ("next", _next(status)),
    ]  # fmt: skip


def as_document(status: DownstreamStatus, limits: Limits | None = None) -> dict[str, Any]:
    """The fields that `--json` prints. `limits` are the configured ones."""
    plain = document(status)
    until_ms, version = plain.pop("paused_until_ms"), plain.pop("version")
    plain = {"name": plain.pop("name"), "state": state(status), **plain, "waiters": status.waiters}
    plain |= {"paused_until": iso(until_ms) if until_ms else None, "limits_set_at": iso(version) if version else None}
    if limits is not None:
        plain["configured"] = limits.model_dump(mode="json")
    return plain


def table_frame(found: Sequence[DownstreamStatus], now_ms: int) -> RenderableType:
    """A frame of `--watch`: the table."""
    from rich.console import Group
    from rich.text import Text

    from midwatch.workers.cli.tables import console

    lines = [_heading(now_ms)]
    if found:
        lines += lay_out(COLUMNS, [row(each, now_ms) for each in found], console().width)
    else:
        lines.append(Text("no downstreams yet"))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines)


def card_frame(status: DownstreamStatus, limits: Limits, now_ms: int) -> RenderableType:
    """A frame of `--watch`: the card of one downstream."""
    from rich.console import Group

    from midwatch.workers.cli.tables import card as drawn

    return Group(_heading(now_ms), drawn(card(status, limits, now_ms)))


def _heading(now_ms: int) -> Any:
    from rich.text import Text

    return Text(f"{iso(now_ms)[:19]}Z, every second until Ctrl-C", "dim")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _moment(ms: int, now_ms: int) -> str:
    """Format a time. The date is left out if it is today's."""
    there, here = iso(ms), iso(now_ms)
    return f"{there[11:19]}Z" if there[:10] == here[:10] else f"{there[:19]}Z"


def _tightest(status: DownstreamStatus) -> str:
    """The level of the emptiest bucket. A negative level is a debt."""
    if not status.limits:
        return ""
    name = min(status.levels, key=lambda each: status.levels[each] / status.depths[each])
    level = status.levels[name]
    left = f"owes {count(round(-level))}" if level <= -1 else _percent(max(0.0, level) / status.depths[name])
    return f"{name.partition('_')[0]} {left}"


def _bucket(name: str, status: DownstreamStatus, limits: Limits) -> str:
    if getattr(limits, f"{name}_per_minute") is not None:
        source = "set"
    else:
        source = "guessed from 429s" if name == "requests" and status.guessed else "named by its provider"
    level, depth = status.levels[name], status.depths[name]
    digits = 1 if depth < 100 else 0
    return f"{format_value(status.limits[name])} a minute ({source}), {level:,.{digits}f} of {depth:,.{digits}f} in the bucket"


def _lines(status: DownstreamStatus) -> str:
    found = ", ".join(f"{status.waiting[lane]:,} {word}" for lane, word in LANES.items() if status.waiting[lane])
    lines = f" ({found})" if found else ""
    return f"{status.waiters:,}{lines}" + (f", {status.woken:,} woken" if status.woken else "")


def _usual(status: DownstreamStatus) -> str:
    output = f", nine of ten write at most {status.expected_output:,.0f} tokens" if status.expected_output else ""
    return f"usually takes {duration(status.latency_ms)}{output}" if status.latency_ms else ""


def _configured(limits: Limits) -> str:
    """The limits as lines that can be copied into `midwatch.toml`."""
    chosen = limits.model_dump(mode="json", exclude_defaults=True)
    return "\n".join(f"{field} = {_toml(value)}" for field, value in chosen.items())


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(part)} = {_toml(item)}' for part, item in value.items())} }}"
    return f"{value:.12g}" if isinstance(value, float) else json.dumps(value)


def _next(status: DownstreamStatus) -> str:
    undo = {"blocked": "unblock", "paused": "resume", "open": "close", "half_open": "close", "trouble": "close"}
    verb = undo.get(state(status))
    return undoing(verb, status.name) if verb else ""


def undoing(verb: str, name: str) -> str:
    """The command line that ends a pause, an opening or a block."""
    return f"midwatch gate {verb} {shlex.quote(name)}"
