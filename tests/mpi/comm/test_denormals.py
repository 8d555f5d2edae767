"""Numbers next to zero are summed as they are, whatever the calling thread does with its own."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from distrain.world import World


@pytest.fixture
def flushing() -> Iterator[None]:
    """torch takes denormal numbers for zero in this thread."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormal numbers")
    yield
    torch.set_flush_denormal(False)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only on x86 is the state of the thread put aside")
@pytest.mark.parametrize("waited", [True, False], ids=["in the caller", "perhaps in the engine"])
@pytest.mark.parametrize("count", [3, 20_000, 500_000])
@pytest.mark.parametrize(
    ("dtype", "bits"),
    [(torch.float32, torch.int32), (torch.float64, torch.int64), (torch.float16, torch.int16)],
    ids=["float32", "float64", "float16"],
)
def test_denormals_are_added(
    world: World,
    group: dist.ProcessGroup,
    flushing: None,
    dtype: torch.dtype,
    bits: torch.dtype,
    count: int,
    waited: bool,
) -> None:
    """Rank r gives r+1 times the smallest number there is, of which P(P+1)/2 is the sum: so say its bits.

    P times as much gives that as the mean. The second call of a size may go another way.
    """
    for scale, op in ((1, dist.ReduceOp.SUM), (world.size, dist.ReduceOp.AVG)) * 2:
        tensor = torch.full((count,), scale * (world.rank + 1), dtype=bits).view(dtype)
        work = dist.all_reduce(tensor, op, group=group, async_op=not waited)
        if work is not None:
            work.wait()
        assert tensor.view(bits).unique().tolist() == [world.size * (world.size + 1) // 2]
