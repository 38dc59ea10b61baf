"""What is known of vendors' models: the size of their window, and the day from which their vendor refuses them.

A model that is not in the table is accepted without these checks. The table is as old as `AS_OF`. A model counts as retired
if its day is not after `AS_OF`. Today's date does not decide: an agent that works today must not refuse to load tomorrow,
because vendors move these days (Google moved Gemini 2.5's from June to December 2026).

Sources, read in November 2026: `DEPRECATED_MODELS` of the anthropic SDK 2.12 and the list in the openai SDK 3.54
(`types/shared/chat_model.py`); the vendors' pages on deprecations (platform.claude.com, developers.openai.com,
ai.google.dev); for windows also genai-prices 0.2.3. OpenAI's windows are input and output together, as a budget is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from midwatch.orchestration.agents.model_names import ModelName

AS_OF = date(2026, 11, 30)
"""When the table was last compared with the vendors' pages."""


@dataclass(frozen=True)
class KnownModel:
    """One row of the table."""

    window: int | None
    """Tokens of input and output together."""
    ends: date | None
    """From this day on the vendor refuses calls. None: no day is announced."""

    @property
    def is_retired(self) -> bool:
        """Did the vendor retire it before the table was made?"""
        return self.ends is not None and self.ends <= AS_OF


UNKNOWN = KnownModel(None, None)


def look_up(name: ModelName) -> KnownModel:
    """Find what is known of a model. The first pattern that matches the whole name decides."""
    for pattern, known in _TABLE.get(name.provider, ()):
        if pattern.fullmatch(name.model):
            return known
    return UNKNOWN


def find_ends(models: Iterable[ModelName]) -> list[tuple[str, date]]:
    """The models whose vendor has announced the day from which it refuses calls, with that day."""
    ends = {str(model): look_up(model).ends for model in models}
    return [(model, day) for model, day in ends.items() if day]


def _row(pattern: str, window: int | None = None, ends: str = "") -> tuple[re.Pattern[str], KnownModel]:
    return re.compile(pattern), KnownModel(window, date.fromisoformat(ends) if ends else None)


_DATE = r"(-20\d{6})?"
_DAY = r"(-20\d\d-\d\d-\d\d)?"

_TABLE = {
    "anthropic": (
        _row(r"claude-(1\.\d|instant-1\.\d)", 100_000, "2024-11-06"),
        _row(r"claude-2\.\d", 200_000, "2025-07-21"),
        _row(rf"claude-3-sonnet{_DATE}", 200_000, "2025-07-21"),
        _row(rf"claude-3-5-sonnet({_DATE}|-latest)", 200_000, "2025-10-28"),
        _row(rf"claude-3-opus({_DATE}|-latest)", 200_000, "2026-01-05"),
        _row(rf"claude-3-(7-sonnet|5-haiku)({_DATE}|-latest)", 200_000, "2026-02-19"),
        _row(rf"claude-3-haiku{_DATE}", 200_000),
        _row(rf"claude-(sonnet|opus)-4(-0)?{_DATE}", 200_000, "2026-06-15"),
        _row(r"claude-mythos-preview", None, "2026-06-30"),
        _row(rf"claude-opus-4-1{_DATE}", 200_000, "2026-08-05"),
        _row(rf"claude-sonnet-4-5{_DATE}", 200_000, "2026-11-30"),
        _row(rf"claude-opus-4-5{_DATE}", 200_000, "2027-01-22"),
        _row(rf"claude-haiku-4-5{_DATE}", 200_000),
        _row(rf"claude-(sonnet|opus|haiku)-(4-[678]|5|5-5){_DATE}", 1_000_000),
        _row(rf"claude-(fable|mythos)-5(-[12])?{_DATE}", 1_000_000),
    ),
    "openai": (
        _row(r"gpt-3\.5-turbo-(16k|0301|0613|16k-0613)", 16_385, "2024-09-13"),
        _row(r"gpt-4-vision-preview", 128_000, "2024-12-06"),
        _row(r"gpt-4-32k(-0314|-0613)?", 32_768, "2025-06-06"),
        _row(rf"o1-preview{_DAY}", 128_000, "2025-07-28"),
        _row(rf"o1-mini{_DAY}", 128_000, "2025-10-27"),
        _row(r"codex-mini-latest", 200_000, "2026-02-12"),
        _row(r"chatgpt-4o-latest", 128_000, "2026-02-17"),
        _row(r"gpt-4-(0125-preview|turbo-preview)", 128_000, "2026-03-26"),
        _row(r"gpt-4-0314", 8_192, "2026-03-26"),
        _row(rf"gpt-(5\.1-codex|5\.1-chat-latest|5-chat-latest|4o(-mini)?-search-preview{_DAY})", None, "2026-07-23"),
        _row(r"gpt-5\.[23]-chat-latest", None, "2026-08-10"),
        _row(r"gpt-3\.5-turbo-1106", 16_385, "2026-09-28"),
        _row(rf"gpt-4\.1-nano{_DAY}", 1_047_576, "2026-10-23"),
        _row(rf"(o4-mini|o3-mini|o1){_DAY}", 200_000, "2026-10-23"),
        _row(rf"(gpt-4o-2024-05-13|gpt-4-turbo{_DAY}|gpt-4-1106-preview)", 128_000, "2026-10-23"),
        _row(r"gpt-4(-0613)?", 8_192, "2026-10-23"),
        _row(r"gpt-3\.5-turbo(-0125)?", 16_385, "2026-10-23"),
        _row(rf"gpt-5(-mini|-nano)?{_DAY}", 400_000, "2026-12-11"),
        _row(rf"o3{_DAY}", 200_000, "2026-12-11"),
        _row(rf"gpt-4\.1(-mini)?{_DAY}", 1_047_576, "2027-01-14"),
        _row(rf"gpt-4o(-mini)?{_DAY}", 128_000, "2027-01-14"),
        _row(rf"gpt-5\.1{_DAY}", 400_000, "2027-04-01"),
        _row(rf"gpt-5\.4-nano{_DAY}", 400_000, "2027-04-01"),
        _row(rf"gpt-5\.(2|2-pro|4-mini){_DAY}", 400_000),
        _row(rf"gpt-5\.4(-pro)?{_DAY}", 1_050_000),
        _row(rf"gpt-5\.5(-pro)?{_DAY}", 1_000_000),
        _row(rf"gpt-(5\.6-(sol|terra|luna)|6-(astra|sol|luna)|6\.1-(sol|terra)){_DAY}", 1_050_000),
    ),
    "gemini": (
        _row(r"gemini-3-pro-preview", 1_048_576, "2026-03-09"),
        _row(r"gemini-2\.5-(pro|flash)", 1_048_576, "2026-12-01"),
        _row(r"gemini-(2\.5-flash-lite|3\.[1567]-flash(-lite)?|3\.8-flash)", 1_048_576),
    ),
}
