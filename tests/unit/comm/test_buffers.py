from __future__ import annotations

import numpy as np
import pytest
import torch

from distrain.comm import native
from distrain.comm.buffers import FlatBuffer, Reduction, StagingPool, byte_view, overlap
from distrain.errors import UsageError

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)


def combine(a: torch.Tensor, b: torch.Tensor, reduction: Reduction) -> torch.Tensor:
    """Reduce the bytes of b, as they would arrive, into a."""
    buffer = FlatBuffer(a)
    mine = buffer.elements(0, a.numel())
    arrived = buffer.typed(byte_view(b).copy(), b.numel())
    buffer.reducer(reduction)(mine, arrived, out=mine)
    return a


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        (Reduction.SUM, [4, 9, 2]),
        (Reduction.PROD, [3, 14, 1]),
        (Reduction.MIN, [1, 2, 1]),
        (Reduction.MAX, [3, 7, 1]),
    ],
)
def test_reductions_in_place(dtype: torch.dtype, reduction: Reduction, expected: list[int]) -> None:
    a, b = torch.tensor([1, 7, 1], dtype=dtype), torch.tensor([3, 2, 1], dtype=dtype)
    assert combine(a, b, reduction) is a
    assert a.tolist() == expected


def test_half_types_round_as_torch_does() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        a = torch.randn(1001, generator=torch.Generator().manual_seed(1)).to(dtype)
        b = torch.randn(1001, generator=torch.Generator().manual_seed(2)).to(dtype)
        expected = a + b
        assert torch.equal(combine(a, b, Reduction.SUM), expected)


def test_nan_wins_minimum_and_maximum() -> None:
    for dtype in FLOATS:
        for reduction in (Reduction.MIN, Reduction.MAX):
            a = torch.tensor([1.0, float("nan")], dtype=dtype)
            b = torch.tensor([float("nan"), 1.0], dtype=dtype)
            assert combine(a, b, reduction).isnan().all()


def test_truth_values() -> None:
    a, b = torch.tensor([True, False, False]), torch.tensor([True, True, False])
    assert combine(a.clone(), b, Reduction.SUM).tolist() == [True, True, False]
    assert combine(a.clone(), b, Reduction.PROD).tolist() == [True, False, False]


@pytest.mark.parametrize("dtype", [d for d in native.TYPES if d is not torch.bool], ids=str)
@pytest.mark.parametrize("divisor", [3, 200, 256])
@pytest.mark.skipif(not native.build_info()[0], reason="the wire in C is not built")
def test_python_and_c_divide_alike(dtype: torch.dtype, divisor: int) -> None:
    """Also by numbers that the type does not hold; a mean of 256 ranks is one."""
    values = torch.tensor([0, 1, 100, 127, 6, 90]).to(dtype)
    one, other = FlatBuffer(values.clone()), FlatBuffer(values.clone())
    one.divide(divisor)
    native.divide(other, divisor)
    assert one.bytes.tolist() == other.bytes.tolist()
    if not dtype.is_floating_point and not dtype.is_complex:
        assert one.tensor.tolist() == [int(v) // divisor for v in values.tolist()]


def test_division_rounds_integers_towards_zero() -> None:
    for values, expected in (([7, -7, 6], [3, -3, 3]),):
        t = torch.tensor(values)
        FlatBuffer(t).divide(2)
        assert t.tolist() == expected
    half = torch.tensor([3.0], dtype=torch.bfloat16)
    FlatBuffer(half).divide(2)
    assert half.item() == 1.5


@pytest.mark.parametrize(
    ("dtype", "reduction"),
    [(torch.float32, Reduction.BAND), (torch.bfloat16, Reduction.BXOR), (torch.complex64, Reduction.MAX)],
    ids=str,
)
def test_meaningless_reductions_are_refused(dtype: torch.dtype, reduction: Reduction) -> None:
    with pytest.raises(UsageError, match=f"op={reduction.value} is not defined for"):
        FlatBuffer(torch.ones(2, dtype=dtype)).reducer(reduction)


def test_strided_tensors_are_refused() -> None:
    with pytest.raises(UsageError, match="contiguous=False"):
        FlatBuffer(torch.ones(4, 4).t())


def test_bytes_share_the_memory_whatever_the_shape() -> None:
    for tensor in (torch.tensor(1.0), torch.zeros(2, 3), torch.zeros(4, 4)[:, 1:2][:1], torch.zeros(0)):
        view = byte_view(tensor)
        assert view.size == tensor.numel() * tensor.element_size()
        view[...] = 255
        assert tensor.isnan().all()


def test_pool_gives_areas_back() -> None:
    pool = StagingPool()
    area = pool.take(1000)
    assert area.size >= 1000 and area.dtype == np.uint8
    pool.give(area)
    assert pool.take(900) is area
    assert pool.allocated_bytes == 1024


def test_tensors_in_one_memory() -> None:
    base = torch.zeros(4, 4)
    apart = [base[0], base[1], base[2:], torch.zeros(3), torch.zeros(0), torch.zeros(0), base[0, :0]]
    assert not overlap(apart) and not overlap([])
    for one, other in ((base, base), (base[:2], base[1:]), (base[:, 0], base[1]), (base.t(), base[3, 3])):
        assert overlap([one, torch.zeros(1), other]) and overlap([other, one])
    sparse = torch.eye(3).to_sparse()
    assert not overlap([sparse, sparse])
