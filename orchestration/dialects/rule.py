"""Rule: one construct that a provider does not accept, or treats differently, with its published source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from midwatch.orchestration.validation.subschemas import Part, Place

Found = Iterator[tuple[Place, str]]
"""Places that break a rule, each with a short text: a property or a keyword."""

REWRITTEN, REPORTED, REFUSED = "rewritten", "reported", "refused"

ROOT = "root"
"""The rule for alternatives at the top level. A rewritten schema must satisfy the rules after it."""


@dataclass(frozen=True)
class Rule:
    """One construct that a provider does not accept, or treats differently."""

    name: str
    finds: Callable[[Sequence[Part]], Found]
    effect: str
    says: str
    """Advice for the author, or what is sent instead."""
    unless: str = ""
    """What to do if the schema can't be rewritten."""
    about: str = ""
    """The construct, as the page `docs/vendors.md` names it."""
    source: str = ""
    """Where the vendor, or a user with the vendor's error, says so."""
