"""The facts ledger of a memory: merge new facts into it, sort them by worth, keep those that fit its size."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from midwatch.orchestration.context.decisions import SAID, STATEMENT_SHARE, find_statements
from midwatch.orchestration.context.facts import DAY_CHARS, Fact, Kind, facts_of, kind_of
from midwatch.orchestration.context.render import rendered_bytes
from midwatch.orchestration.context.scan import pieces
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.memory import Facts, Memory
from midwatch.schemas.message import Message

MIN_ITEM_BYTES = 4
"""Shortest item with its separator. It limits how many facts are considered at all."""

CROWD = 24
"""This many similar facts (same place, field and kind) keep their full worth.

The next ones lose one point for each doubling of their number, or three points if they resemble nothing that the model
has used. So one huge table can't displace the rest.
"""

MIN_ID_DIGITS = 5
"""Whole numbers with fewer digits are amounts, years or counts, not ids."""

FRESH_BITS = 1
"""Facts of the newest two groups keep their full worth. Each doubling of the age costs two points.

In recorded sessions most facts are needed again within six groups.
"""

LOOSE = (Kind.CODE, Kind.NAME, Kind.WORD)
"""Kinds that are often a wrong guess for a word in a text. For a whole field the guess is reliable."""

USED_LOOSE = 7
"""Such a word in the model's own arguments is mostly a variable of a program. The next program has its own."""

_LETTERS = re.compile(r"[^\W\d_]+")
_READABLE = re.compile(r"[/@]")
"""Paths, addresses and URLs: people and models type them again, so they are worth more."""

_DIGEST = re.compile(r"[0-9a-f]{32}")
"""Content digests: they are rarely used again, so they are worth less."""

EXACT_DIGITS = 6
"""A number with more decimals was made by a machine, and is usually rounded before it is used."""

_RUNS = re.compile(r"[^\W_]+")
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class UsedArguments:
    """The arguments of the model's calls so far: their names, and the shapes of their values."""

    labels: frozenset[str]
    shapes: frozenset[str]


def absorb_facts(
    memory: Memory, messages: Sequence[Message], room_bytes: int, *, live: Sequence[Message] = (), pinned: str = ""
) -> Memory:
    """Add the facts of messages that leave the window to a memory of limited size.

    Args:
        memory: The memory so far. Its summary and open items stay, and count for its size.
        messages: The messages that leave: whole groups, or the originals of elided or cut messages.
        room_bytes: Largest size of the rendered memory. Facts of the least worth are dropped until it is met.
        live: The messages that stay. Their facts are not kept twice: they are absorbed when these messages leave.
        pinned: Text that always stays (system prompt, goal).

    """
    here = list(facts_of(live))
    # A day that occurs only inside a timestamp does not count as present: a search for the day would not find it.
    stamped = {fact.value[:DAY_CHARS] for fact in here if len(fact.value) > DAY_CHARS and fact.value[4:5] == "-"}
    present = {fact.value for fact in here if fact.value not in stamped} | {value for _, value, _ in pieces(pinned)}
    stored = list(_facts_in(memory.facts))
    fresh = list(facts_of(messages))
    wanted = _used_arguments(fact for facts in (stored, fresh, here) for fact in facts if fact.used)
    statements = [fact for fact in stored if fact.kind is Kind.SAID]
    statements += [fact for fact in find_statements(messages) if all(fact.value != one.value for one in statements)]
    merged = _merge([*(fact for fact in stored if fact.kind is not Kind.SAID), *fresh], present)
    order = _by_worth(merged, wanted)[: max(0, room_bytes) // MIN_ITEM_BYTES]
    bare = memory.model_copy(update={"facts": ()})
    statement_room_bytes = min(room_bytes, rendered_bytes(bare) + int(room_bytes * STATEMENT_SHARE))
    newest_first = _longest_that_fits(bare, statements[::-1], statement_room_bytes)
    best = {fact.value for fact in _longest_that_fits(bare, order, room_bytes, always=newest_first)}
    later = {_entry_key(entry): entry.model_extra for entry in memory.facts if entry.model_extra}
    return _with_facts(bare, [*newest_first[::-1], *(fact for fact in merged if fact.value in best)], later)


def _longest_that_fits(bare: Memory, order: list[Fact], room_bytes: int, always: Sequence[Fact] = ()) -> list[Fact]:
    """The longest beginning of `order` that fits. A binary search renders each attempt, so the size is exact."""
    low, high = 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        if rendered_bytes(_with_facts(bare, [*always, *order[:middle]])) <= room_bytes:
            low = middle
        else:
            high = middle - 1
    return order[:low]


EntryKey = tuple[int, str, bool, str, bool]


def _entry_key(one: Fact | Facts) -> EntryKey:
    """The key of a fact's entry in the ledger. Facts with the same key share one entry."""
    return one.group, one.source, one.untrusted, one.label, one.used


def _with_facts(bare: Memory, facts: Iterable[Fact], later: Mapping[EntryKey, JsonObject] | None = None) -> Memory:
    """The memory with these facts as entries, the oldest first, grouped by place and field.

    `later` are fields of entries that a later release wrote. They are kept.
    """
    entries: dict[EntryKey, list[str]] = {}
    for fact in sorted(facts, key=lambda one: one.group):
        entries.setdefault(_entry_key(fact), []).append(fact.value)
    facts_kept = tuple(
        Facts.model_construct(
            group=key[0],
            source=key[1],
            untrusted=key[2],
            label=key[3],
            used=key[4],
            items=tuple(items),
            **(later or {}).get(key, {}),
        )
        for key, items in entries.items()
    )
    return bare.model_copy(update={"facts": facts_kept})


def _facts_in(entries: Iterable[Facts]) -> Iterable[Fact]:
    for entry in entries:
        is_statement = not entry.untrusted and entry.label in SAID
        for value in entry.items:
            kind = Kind.SAID if is_statement else kind_of(value, whole=True) or Kind.WORD
            yield Fact(
                value, kind, entry.label, entry.group, entry.source, entry.untrusted, entry.used, bool(entry.label)
            )


def _merge(facts: Iterable[Fact], present: set[str]) -> list[Fact]:
    """Merge equal values under their first origin. Values that are in the window are left out."""
    merged: dict[str, Fact] = {}
    for fact in facts:
        if fact.value in present:
            continue
        known = merged.get(fact.value)
        if known is None:
            merged[fact.value] = fact
        elif _adds(known, fact):
            merged[fact.value] = replace(
                known,
                used=known.used or fact.used,
                label=known.label or fact.label,
                kind=max(known.kind, fact.kind),
                whole=known.whole or fact.whole,
            )
    return list(merged.values())


def _adds(known: Fact, fact: Fact) -> bool:
    """Does a second occurrence of a value tell something new about it?"""
    return (
        (fact.used and not known.used)
        or (fact.label != "" and not known.label)
        or (fact.whole and not known.whole)
        or fact.kind > known.kind
    )


def _used_arguments(used: Iterable[Fact]) -> UsedArguments:
    labels: set[str] = set()
    shapes: set[str] = set()
    for fact in used:
        labels.add(_stem(fact.label))
        shapes.update(_shapes(fact))
    return UsedArguments(frozenset(labels - {""}), frozenset(shapes))


def _stem(label: str) -> str:
    """`order_id`, `orderId` and `order_ids` name one thing."""
    return label.casefold().replace("_", "").replace("-", "").replace(" ", "").removesuffix("s")


def _shapes(fact: Fact) -> tuple[str, ...]:
    """The shapes of a value. Values of the same shape are probably of the same kind.

    One shape has the character classes (`#W2378156` and `#W63` are both `#a9`). Values with digits also have a shape of
    lengths (a UUID is `8-4-4-4-12`). The only shape of a whole number is its length, and a short number has no shape:
    numbers of ten digits are probably ids of one kind, numbers of three may be anything. Plain words, decimal numbers
    and dates have no shape: all dates look alike.
    """
    value = fact.value
    if fact.kind in (Kind.WORD, Kind.NAME, Kind.DATE) or (fact.kind is Kind.AMOUNT and not value.isdecimal()):
        return ()
    if value.isdecimal():
        return (str(len(value)),) if len(value) >= MIN_ID_DIGITS else ()
    classes = _DIGITS.sub("9", _LETTERS.sub("a", value))
    if classes == "a" or len(value) < MIN_ID_DIGITS or "9" not in classes:
        return (classes,) if classes != "a" else ()
    return classes, _RUNS.sub(lambda run: str(len(run[0])), value)


def _by_worth(facts: list[Fact], wanted: UsedArguments) -> list[Fact]:
    crowd: Counter[tuple[int, str, str, Kind]] = Counter()
    newest = max((fact.group for fact in facts), default=0)
    scored = []
    for place, fact in enumerate(facts):
        alike = (fact.group, fact.source, fact.label, fact.kind)
        crowd[alike] += 1
        age = max(0, (newest - fact.group).bit_length() - FRESH_BITS)
        scored.append((_worth(fact, wanted, crowd[alike]) - 2 * age, fact.group, -place, fact))
    scored.sort(key=lambda one: one[:3], reverse=True)
    return [fact for _, _, _, fact in scored]


def _worth(fact: Fact, wanted: UsedArguments, nth: int) -> int:
    worth = 2 * fact.kind
    is_loose = not fact.whole and fact.kind in LOOSE
    if is_loose:
        worth -= USED_LOOSE if fact.used else 3
    if fact.kind is Kind.AMOUNT and len(fact.value.rpartition(".")[2]) > EXACT_DIGITS:
        worth -= 3
    if fact.used and fact.whole:
        worth += 4
    if not fact.untrusted:
        worth += 3 if fact.whole or fact.source == "user" else 1
    if fact.kind is Kind.ID:
        worth += 1 if _READABLE.search(fact.value) else -4 if _DIGEST.search(fact.value) else 0
    named = fact.label != "" and _stem(fact.label) in wanted.labels
    shaped = not (is_loose and fact.used) and any(shape in wanted.shapes for shape in _shapes(fact))
    worth += 5 * named + 4 * shaped
    crowding = (nth // CROWD).bit_length()
    return worth - len(fact.value) // 80 - (crowding if named or shaped else 3 * crowding)
