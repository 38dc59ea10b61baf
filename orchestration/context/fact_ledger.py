"""The facts ledger: merge new facts into a memory's, put them in order of worth, keep what fits its room."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from midwatch.orchestration.context.decisions import SAID, SAID_SHARE, said_by
from midwatch.orchestration.context.facts import DAY_CHARS, Fact, Kind, facts_of, kind_of
from midwatch.orchestration.context.render import rendered_bytes
from midwatch.orchestration.context.scan import pieces
from midwatch.schemas.memory import Facts, Memory
from midwatch.schemas.message import Message

MIN_ITEM_BYTES = 4
"""No item with its separator is shorter: bounds how many can matter before any is rendered."""

CROWD = 24
"""As many alike facts (same place, same field, same kind) count in full; each doubling beyond costs one point, or three
when they resemble nothing the model has used, so that one huge table can't push everything else out."""

MIN_ID_DIGITS = 5
"""Shorter whole numbers are amounts, years, counts."""

FRESH_BITS = 4
"""Facts of the newest 16 groups count in full; each doubling of the age costs two points."""

LOOSE = (Kind.CODE, Kind.NAME, Kind.WORD)
"""Kinds that a word of a text is easily taken for; as a whole field they are what they seem."""

_LETTERS = re.compile(r"[^\W\d_]+")
_READABLE = re.compile(r"[/@]")
"""Paths, addresses, URLs: people and models type them again."""

_DIGEST = re.compile(r"[0-9a-f]{32}")
"""Content digests: nobody types them again, unless somebody has."""

EXACT_DIGITS = 6
"""Decimals beyond it are a machine's; whoever uses the number rounds it first."""

_RUNS = re.compile(r"[^\W_]+")
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Wanted:
    """What the model's calls have been made of so far: names of arguments, and what their values look like."""

    labels: frozenset[str]
    shapes: frozenset[str]


def absorb_facts(
    memory: Memory, messages: Sequence[Message], room_bytes: int, *, live: Sequence[Message] = (), pinned: str = ""
) -> Memory:
    """The memory with the facts of messages that leave the window, within its room.

    Args:
        memory: What was kept so far. Its summary and open items stay, and count.
        messages: What leaves: whole groups, or the originals of elided or cut messages.
        room_bytes: Ceiling of the rendered memory. Facts go, least worth first, until it holds.
        live: What stays in the window. A fact that stands there is not kept twice: it is found again when its turn comes.
        pinned: Text that always stays (system prompt, goal).

    """
    here = list(facts_of(live))
    # A day is in the window when it stands there itself; as the head of a time stamp it is not found by who looks for it.
    stamped = {fact.value[:DAY_CHARS] for fact in here if len(fact.value) > DAY_CHARS and fact.value[4:5] == "-"}
    present = {fact.value for fact in here if fact.value not in stamped} | {value for _, value, _ in pieces(pinned)}
    stored = list(_stored(memory.facts))
    fresh = list(facts_of(messages))
    wanted = _wanted(fact for facts in (stored, fresh, here) for fact in facts if fact.used)
    said = [fact for fact in stored if fact.kind is Kind.SAID]
    said += [fact for fact in said_by(messages) if all(fact.value != one.value for one in said)]
    merged = _merge([*(fact for fact in stored if fact.kind is not Kind.SAID), *fresh], present)
    order = _by_worth(merged, wanted)[: max(0, room_bytes) // MIN_ITEM_BYTES]
    bare = memory.model_copy(update={"facts": ()})
    said_room_bytes = min(room_bytes, rendered_bytes(bare) + int(room_bytes * SAID_SHARE))
    newest_first = _fitting(bare, said[::-1], said_room_bytes)
    best = {fact.value for fact in _fitting(bare, order, room_bytes, always=newest_first)}
    return _with(bare, [*newest_first[::-1], *(fact for fact in merged if fact.value in best)])


def _fitting(bare: Memory, order: list[Fact], room_bytes: int, always: Sequence[Fact] = ()) -> list[Fact]:
    """The longest beginning of `order` that fits: found by halving, each try rendered, so the room is kept exactly."""
    low, high = 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        if rendered_bytes(_with(bare, [*always, *order[:middle]])) <= room_bytes:
            low = middle
        else:
            high = middle - 1
    return order[:low]


def _with(bare: Memory, facts: Iterable[Fact]) -> Memory:
    """Facts as entries: oldest first, those of one place and field together."""
    entries: dict[tuple[int, str, bool, str, bool], list[str]] = {}
    for fact in sorted(facts, key=lambda one: one.group):
        entries.setdefault((fact.group, fact.source, fact.untrusted, fact.label, fact.used), []).append(fact.value)
    facts_kept = tuple(
        Facts.model_construct(
            group=group, source=source, untrusted=untrusted, label=label, used=used, items=tuple(items)
        )
        for (group, source, untrusted, label, used), items in entries.items()
    )
    return bare.model_copy(update={"facts": facts_kept})


def _stored(entries: Iterable[Facts]) -> Iterable[Fact]:
    for entry in entries:
        said = not entry.untrusted and entry.label in SAID
        for value in entry.items:
            kind = Kind.SAID if said else kind_of(value, whole=True) or Kind.WORD
            yield Fact(
                value, kind, entry.label, entry.group, entry.source, entry.untrusted, entry.used, bool(entry.label)
            )


def _merge(facts: Iterable[Fact], present: set[str]) -> list[Fact]:
    """Each value once, under its first origin; what is in the window stays out."""
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
    """True when the second place where a value stands says something new of it."""
    return (
        (fact.used and not known.used)
        or (fact.label != "" and not known.label)
        or (fact.whole and not known.whole)
        or fact.kind > known.kind
    )


def _wanted(used: Iterable[Fact]) -> Wanted:
    labels: set[str] = set()
    shapes: set[str] = set()
    for fact in used:
        labels.add(_stem(fact.label))
        shapes.update(_shapes(fact))
    return Wanted(frozenset(labels - {""}), frozenset(shapes))


def _stem(label: str) -> str:
    """`order_id`, `orderId` and `order_ids` name one thing."""
    return label.casefold().replace("_", "").replace("-", "").replace(" ", "").removesuffix("s")


def _shapes(fact: Fact) -> tuple[str, ...]:
    """What the value has in common with its like.

    By classes of characters (`#W2378156` and `#W63` are `#a9`), and, for what holds digits, by lengths (a UUID is `8-4-4-4-12`).
    Plain words are alike in nothing. Whole numbers are only by their length: ten digits here and there are ids of one kind,
    three say nothing; and decimal numbers not at all.
    """
    value = fact.value
    if fact.kind in (Kind.WORD, Kind.NAME) or (fact.kind is Kind.AMOUNT and not value.isdecimal()):
        return ()
    if value.isdecimal():
        return (str(len(value)),) if len(value) >= MIN_ID_DIGITS else ()
    classes = _DIGITS.sub("9", _LETTERS.sub("a", value))
    if classes == "a" or fact.kind is Kind.DATE or len(value) < MIN_ID_DIGITS or "9" not in classes:
        return (classes,) if classes != "a" else ()
    return classes, _RUNS.sub(lambda run: str(len(run[0])), value)


def _by_worth(facts: list[Fact], wanted: Wanted) -> list[Fact]:
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


def _worth(fact: Fact, wanted: Wanted, nth: int) -> int:
    worth = 2 * fact.kind
    if not fact.whole and fact.kind in LOOSE:
        worth -= 3
    if fact.kind is Kind.AMOUNT and len(fact.value.rpartition(".")[2]) > EXACT_DIGITS:
        worth -= 3
    if fact.used and fact.whole:
        worth += 4
    if not fact.untrusted:
        worth += 3 if fact.whole or fact.source == "user" else 1
    if fact.kind is Kind.ID:
        worth += 1 if _READABLE.search(fact.value) else -4 if _DIGEST.search(fact.value) else 0
    named = fact.label != "" and _stem(fact.label) in wanted.labels
    shaped = any(shape in wanted.shapes for shape in _shapes(fact))
    worth += 5 * named + 4 * shaped
    crowding = (nth // CROWD).bit_length()
    return worth - len(fact.value) // 80 - (crowding if named or shaped else 3 * crowding)
