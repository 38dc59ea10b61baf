"""Read the JSON Schema Test Suite (https://github.com/json-schema-org/JSON-Schema-Test-Suite) as calls of tools.

Each test is a case: its schema is a tool's schema, and its data are the arguments. Only tests whose data are an object can be
calls.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from midwatch.orchestration.errors import ConfigError

DRAFT_07 = "http://json-schema.org/draft-07/schema#"


class SuiteCase(NamedTuple):
    """One test of the suite."""

    schema: Any
    arguments: str
    valid: bool


def read_suite(path: Path) -> Iterator[SuiteCase]:
    """Read the tests whose data are an object, without the optional ones.

    Args:
        path: a draft's folder of the suite, such as `tests/draft7`; or one JSON file that maps each file's name to its
            groups, which may be compressed (`.gz`). Its name must contain `draft7` for draft 07.

    Raises:
        ConfigError: there is no such folder or file, or it is not the suite.

    """
    old = "draft7" in path.name
    try:
        for name, groups in _read_files(path):
            if not name.startswith("optional/"):
                yield from (case for group in groups for case in _read_group(group, old))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"--suite {path}: expected a folder or file of the JSON Schema Test Suite; {error}"
        ) from error


def _read_files(path: Path) -> Iterator[tuple[str, Any]]:
    if path.is_dir():
        yield from ((one.name, json.loads(one.read_text(encoding="utf-8"))) for one in sorted(path.glob("*.json")))
        return
    packed = path.read_bytes()
    yield from json.loads(gzip.decompress(packed) if path.suffix == ".gz" else packed).items()


def _read_group(group: Any, old: bool) -> Iterator[SuiteCase]:
    schema = group["schema"]
    if old and isinstance(schema, dict):
        schema = {"$schema": DRAFT_07, **schema}
    for test in group["tests"]:
        if isinstance(test["data"], dict):
            yield SuiteCase(schema, json.dumps(test["data"]), test["valid"])
