"""Sums as symbols: who is counted how often, and in which order the additions were made.

Floating-point addition commutes but does not associate, so two slots hold the same bits for
every input exactly if their sums are the same tree up to swapping the two sides of an addition.
Equal trees get equal numbers here, which makes that comparison one ``==``.
"""

from __future__ import annotations

from operator import add


class Sums:
    """All sums that occur in one run, each made once.

    A sum is a number; ``counts(sum)[r]`` says how often rank ``r`` contributed to it. Counts are
    exact integers, never flags: a contribution that is added twice must show.
    """

    def __init__(self, world_size: int) -> None:
        self._numbers: dict[tuple[int, int], int] = {}
        self._counts: list[tuple[int, ...]] = [
            tuple(int(r == rank) for r in range(world_size)) for rank in range(world_size)
        ]

    def own(self, rank: int) -> int:
        """Return the contribution of one rank, as it was at the start."""
        return rank

    def add(self, left: int, right: int) -> int:
        """Return the sum of two sums."""
        key = (left, right) if left <= right else (right, left)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._counts)
            self._counts.append(tuple(map(add, self._counts[left], self._counts[right])))
        return number

    def counts(self, number: int) -> tuple[int, ...]:
        """Return how often each rank is counted in a sum."""
        return self._counts[number]
