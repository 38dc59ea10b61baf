"""The Glushkov automaton of a regular expression, and a test whether one of its loops is ambiguous.

The test: two readers start at the same position and read the same text. A loop is ambiguous if they can separate and meet
again at the start, or if one step can be taken in two ways. Then one round of the loop has two readings, and n rounds have
2^n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count as counted
from itertools import product
from typing import TypeVar

FEW = 4
"""Most repetitions that are built one by one. More count as unlimited, since n^5 is in practice as slow as 2^n."""

MAX_POSITIONS = 1_000
MAX_PAIRS = 20_000
MAX_STEPS = 200_000
MAX_TRIPLES = 50_000

Pair = tuple[int, int]
Node = TypeVar("Node", int, Pair)


class TooLarge(Exception):
    """Raised when an automaton is too large to analyse."""


@dataclass(frozen=True)
class Part:
    """A part of the automaton: the number of ways to be empty, to begin at a position, and to end at one. Two means many."""

    empty: int
    first: Mapping[int, int]
    last: Mapping[int, int]


class Automaton:
    """An automaton, built from the leaves up. Each edge has the number of ways in which the pattern allows it."""

    nothing = Part(empty=1, first={}, last={})

    def __init__(self) -> None:
        self._accepts: list[frozenset[str]] = []
        self._follow: list[dict[int, int]] = []

    def position(self, accepts: frozenset[str]) -> Part:
        """A part that reads one character."""
        if len(self._accepts) >= MAX_POSITIONS:
            raise TooLarge
        self._accepts.append(accepts)
        self._follow.append({})
        here = {len(self._accepts) - 1: 1}
        return Part(empty=0, first=here, last=here)

    def then(self, one: Part, two: Part) -> Part:
        """A part that reads `one` and then `two`."""
        self._join(one.last, two.first)
        return Part(
            empty=min(2, one.empty * two.empty),
            first=_sum(one.first, two.first, one.empty),
            last=_sum(two.last, one.last, two.empty),
        )

    def either(self, parts: Sequence[Part]) -> Part:
        """A part that reads any one of these. The parser gives `(a|a)` as `a(|)`, which has two ways to be empty."""
        whole = Part(empty=0, first={}, last={})
        for part in parts:
            whole = Part(
                empty=min(2, whole.empty + part.empty),
                first=_sum(whole.first, part.first),
                last=_sum(whole.last, part.last),
            )
        return whole

    def repeat(self, low: int, high: int, times: int, width: tuple[int, int], body: Callable[[], Part]) -> Part:
        """A part that reads `body` from `low` to `high` times.

        Args:
            low: Fewest repetitions.
            high: Most repetitions.
            times: `high` times the counts of all outer loops: `((a*){3}){3}` is as slow as `(a*){9}`.
            width: The length of the shortest and of the longest text of one repetition.
            body: Builds one repetition. Called once for each repetition that is built.

        """
        fixed = width[0] == width[1] and high * max(1, width[1]) <= MAX_POSITIONS // 4
        if times > FEW and not fixed and high > 1:
            part = body()
            self._join(part.last, part.first)
            return replace(part, empty=min(1, part.empty)) if low else self.either([part, self.nothing])
        part = self.nothing
        for count in range(high, 0, -1):  # x{1,3} is x(x(x)?)?, so build the innermost first
            part = self.then(body(), part)
            if count > low:
                part = self.either([part, self.nothing])
        return part

    def _join(self, last: Mapping[int, int], first: Mapping[int, int]) -> None:
        for one, ways in last.items():
            edges = self._follow[one]
            for two, more in first.items():
                edges[two] = min(2, edges.get(two, 0) + ways * more)

    def is_ambiguous(self) -> bool:
        """Can a loop read one text in two ways?

        Raises:
            TooLarge: the answer takes more steps than allowed.

        """
        for loop in strong_components(self._pairs()):
            together = {one for one, two in loop if one == two}
            if not together:
                continue
            if len(together) < len(loop):
                return True
            if any(self._follow[one].get(to, 0) > 1 for one in together for to in together):
                return True
        return False

    def is_polynomial(self, most: int) -> bool:
        """Can two loops divide one text in a number of ways that grows with its length, as in `a*a*`?

        They can if one text leads from a first position to itself, from the first to a second, and from the second to
        itself (Weber and Seidl, "On the degree of ambiguity of finite automata", 1991). Three readers search for it.

        Raises:
            TooLarge: there are more than `most` positions, or the answer takes more steps than allowed.

        """
        if len(self._accepts) > most:
            raise TooLarge
        places = range(len(self._accepts))
        steps = counted()
        return any(self._reaches((p, p, q), (p, q, q), steps) for p in places for q in places if p != q)

    def _reaches(self, begin: tuple[int, int, int], end: tuple[int, int, int], steps: Iterator[int]) -> bool:
        seen, todo = {begin}, [begin]
        while todo:
            one, two, three = todo.pop()
            for triple in product(self._follow[one], self._follow[two], self._follow[three]):
                if next(steps) > MAX_TRIPLES:
                    raise TooLarge
                if triple not in seen and frozenset.intersection(*(self._accepts[place] for place in triple)):
                    if triple == end:
                        return True
                    seen.add(triple)
                    todo.append(triple)
        return False

    def _pairs(self) -> dict[Pair, list[Pair]]:
        """The pairs of positions that two readers of one text reach from a common start, with their next steps in the loop."""
        loops = strong_components({position: list(edges) for position, edges in enumerate(self._follow)})
        loop_of = {position: number for number, loop in enumerate(loops) for position in loop}
        graph: dict[Pair, list[Pair]] = {}
        todo: list[Pair] = [(position, position) for position in loop_of]
        steps = 0
        while todo:
            pair = todo.pop()
            if pair in graph:
                continue
            graph[pair] = []
            for one in self._follow[pair[0]]:
                for two in self._follow[pair[1]]:
                    steps += 1
                    if not loop_of.get(one, -1) == loop_of.get(two, -2) == loop_of[pair[0]]:
                        continue
                    if one == two or self._accepts[one] & self._accepts[two]:
                        graph[pair].append((min(one, two), max(one, two)))
            if len(graph) > MAX_PAIRS or steps > MAX_STEPS:
                raise TooLarge
            todo.extend(graph[pair])
        return graph


def _sum(one: Mapping[int, int], two: Mapping[int, int], times: int = 1) -> dict[int, int]:
    total = dict(one)
    if times:
        for position, ways in two.items():
            total[position] = min(2, total.get(position, 0) + ways * times)
    return total


def strong_components(graph: dict[Node, list[Node]]) -> list[set[Node]]:
    """Find the strongly connected components with a loop (Tarjan 1972, without recursion)."""
    index: dict[Node, int] = {}
    low: dict[Node, int] = {}
    stack: list[Node] = []
    on_stack: set[Node] = set()
    found: list[set[Node]] = []
    for root in graph:
        work = [(root, iter(graph[root]))] if root not in index else []
        while work:
            node, children = work[-1]
            if node not in index:
                index[node] = low[node] = len(index)
                stack.append(node)
                on_stack.add(node)
            for child in children:
                if child not in index:
                    work.append((child, iter(graph[child])))
                    break
                if child in on_stack:
                    low[node] = min(low[node], index[child])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = set(stack[stack.index(node) :])
                    del stack[-len(component) :]
                    on_stack -= component
                    if len(component) > 1 or node in graph[node]:
                        found.append(component)
    return found
