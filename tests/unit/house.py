"""The shape of the repository, computed from the syntax trees: entries of packages, imports between them, import cycles.

`make house`, or `python tests/unit/house.py [CHECKOUT]`, prints it. All imports count, also those under `TYPE_CHECKING` and
inside functions. It also works on a checkout from before the import name `midwatch`, so two commits can be compared.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("schemas", "orchestration", "workers")

MAX_DOORS = 18
"""Most modules and subpackages that a package shows."""

RUN = {"orchestration.agents.agent", "orchestration.client.client", "orchestration.client.new_job"}
"""The only import cycle: `agent.run()` enqueues a job, so the agent imports the client."""


class House:
    """The modules of a checkout, and what each imports."""

    def __init__(self, root: Path) -> None:
        self.files = {
            ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
            for package in PACKAGES
            for path in sorted((root / package).rglob("*.py"))
        }
        self.imports = {name: set(self._imports_of(name, path)) - {name} for name, path in self.files.items()}

    def _imports_of(self, name: str, path: Path) -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names):
                    yield from filter(None, (self._ours(one.name) for one in names))
                case ast.ImportFrom(module=str(module), names=names, level=0):
                    for one in names:
                        if found := self._ours(f"{module}.{one.name}") or self._ours(module):
                            yield found

    def _ours(self, dotted: str) -> str | None:
        short = dotted.removeprefix("midwatch.")
        return short if short in self.files else None

    def doors(self, package: str) -> set[str]:
        """Return what the listing of a package shows: its modules and subpackages."""
        return {self.door_of(name, package) for name in self.files if name.startswith(f"{package}.")}

    def door_of(self, name: str, package: str) -> str:
        """Return the module or subpackage of a package that contains a module."""
        return ".".join(name.split(".")[: package.count(".") + 2])

    def arrows(self, package: str) -> set[tuple[str, str]]:
        """Return the imports between different entries of a package."""
        inside = f"{package}."
        return {
            (self.door_of(name, package), self.door_of(target, package))
            for name, targets in self.imports.items()
            for target in targets
            if name.startswith(inside) and target.startswith(inside)
            if self.door_of(name, package) != self.door_of(target, package)
        }

    def circles(self) -> list[set[str]]:
        """Return the groups of files that import each other, the largest first (strongly connected components, by Kosaraju)."""
        back = defaultdict(set)
        for name, targets in self.imports.items():
            for target in targets:
                back[target].add(name)
        order: list[str] = []
        seen: set[str] = set()
        for name in self.files:
            self._visit(name, self.imports, seen, order)
        seen.clear()
        found = []
        for name in reversed(order):
            group: list[str] = []
            self._visit(name, back, seen, group)
            if len(group) > 1:
                found.append(set(group))
        return sorted(found, key=len, reverse=True)

    @staticmethod
    def _visit(start: str, edges: dict[str, set[str]], seen: set[str], order: list[str]) -> None:
        stack = [(start, iter(sorted(edges.get(start, ()))))] if start not in seen else []
        seen.add(start)
        while stack:
            name, targets = stack[-1]
            for target in targets:
                if target not in seen:
                    seen.add(target)
                    stack.append((target, iter(sorted(edges.get(target, ())))))
                    break
            else:
                stack.pop()
                order.append(name)


def find_faults(house: House) -> list[str]:
    """Return what breaks the rules: a package with too many entries, an import cycle other than the one of `agent.run()`."""
    faults = [
        f"{package} has {len(house.doors(package))} entries, at most {MAX_DOORS}: move a family of files into a subpackage"
        for package in PACKAGES
        if len(house.doors(package)) > MAX_DOORS
    ]
    faults += [f"import cycle: {', '.join(sorted(circle))}" for circle in house.circles() if circle != RUN]
    return faults


def main(root: Path) -> None:
    """Print the shape."""
    house = House(root)
    print(f"{'package':<16}{'entries':>9}{'modules':>9}{'imports':>9}")
    for package in PACKAGES:
        modules = sum(name.startswith(f"{package}.") for name in house.files)
        print(f"{package:<16}{len(house.doors(package)):>9}{modules:>9}{len(house.arrows(package)):>9}")
    circles = house.circles()
    print("" if circles else "no import cycles")
    for circle in circles:
        print(f"import cycle of {len(circle)} files: {', '.join(sorted(circle))}")


if __name__ == "__main__":
    arguments = [one for one in sys.argv[1:] if one != "--check"]
    checkout = Path(arguments[0]) if arguments else Path(__file__).resolve().parents[2]
    if "--check" not in sys.argv:
        main(checkout)
    elif found := find_faults(House(checkout)):
        sys.exit("\n".join(found))
