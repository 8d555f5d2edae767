"""The pipeline alone: what is planned and decoded when, jumps, failures, ends."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from distrain.data.pipeline import Pipeline, Work
from distrain.errors import DataError

COUNT = 300  # images of a batch: three pieces with one thread


class Source:
    """Batch ``n`` has the pixel value ``n``; notes who was asked for what."""

    def __init__(self, end: int = 1000) -> None:
        self.end, self.plans, self.begun = end, [], []
        self.fail_plan: int | None = None
        self.fail_piece: int | None = None
        self.lock = threading.Lock()

    def plan(self, number: int) -> np.ndarray:
        with self.lock:
            self.plans.append(number)
        if number == self.fail_plan:
            raise DataError("plan", "fails", "-")
        return np.arange(COUNT) + number

    def begin(self, number: int) -> Work[int, np.ndarray] | None:
        if number >= self.end:
            return None
        self.begun.append(number)

        def fill(plan: np.ndarray, part: range, out: np.ndarray) -> np.ndarray:
            if number == self.fail_piece and part.start > 0:
                raise DataError("piece", "fails", "-")
            out[...] = number % 256
            return plan[part.start : part.stop]

        return Work(number, np.zeros((COUNT, 2, 2, 3), np.uint8), fill)


def pipeline(source: Source, threads: int, ahead: int) -> Pipeline[int, np.ndarray]:
    return Pipeline(source.plan, source.begin, threads, ahead)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("ahead", [1, 3])
def test_batches_in_order_each_planned_once(threads: int, ahead: int) -> None:
    source = Source()
    decoder = pipeline(source, threads, ahead)
    for number in range(20):
        owner, indices = decoder.take(number)
        assert owner == number and np.array_equal(indices, np.arange(COUNT) + number)
    decoder.close()
    assert source.begun == list(range(20 + ahead))
    assert sorted(source.plans) == list(range(20 + ahead + 1))[: len(source.plans)]
    assert len(source.plans) >= 20


@pytest.mark.parametrize("threads", [1, 3])
def test_jumps_forget_what_was_begun(threads: int) -> None:
    decoder = pipeline(Source(), threads, 3)
    for number in (0, 1, 50, 51, 2, 2, 3, 52):
        owner, indices = decoder.take(number)
        assert owner == number and indices[0] == number
    decoder.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_plan_or_piece_that_fails_ends_the_take(threads: int) -> None:
    source = Source()
    source.fail_plan, source.fail_piece = 5, 9
    decoder = pipeline(source, threads, 2)
    for number in range(5):
        decoder.take(number)
    with pytest.raises(DataError, match="plan: fails"):
        decoder.take(5)
    for number in (6, 7, 8):
        assert decoder.take(number)[0] == number
    with pytest.raises(DataError, match="piece: fails"):
        decoder.take(9)
    assert decoder.take(10)[0] == 10
    decoder.close()


def test_the_last_batch_is_the_last() -> None:
    source = Source(end=3)
    decoder = pipeline(source, 2, 5)
    assert [decoder.take(number)[0] for number in range(3)] == [0, 1, 2]
    decoder.close()
    assert source.begun == [0, 1, 2]
