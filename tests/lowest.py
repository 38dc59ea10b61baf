"""Print the lowest versions that pyproject.toml allows, as constraints for pip: `python tests/lowest.py`.

`make lowest` installs them into an environment of their own and runs the quick tests there. The other end is `constraints.txt`,
with which all other targets run.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def list_lowest(dependencies: list[str]) -> list[str]:
    """Return `name==version` for each `name>=version`."""
    found = (re.match(r"([\w.-]+)(?:\[[^\]]*\])?>=([\w.]+)", each) for each in dependencies)
    return [f"{match[1]}=={match[2]}" for match in found if match]


if __name__ == "__main__":
    print("\n".join(list_lowest(tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"])))
