"""DALI's mixed decoder and nvJPEG beside the engines of the CPU: the same crops, nearly the same pixels."""

from __future__ import annotations

import importlib.util
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from distrain.data.decode.engine import DecodeEngine, DecodeError
from distrain.data.decode.engines import create

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def _is_installed(*names: str) -> bool:
    """True if all are; a dotted name after its parent."""
    return all(importlib.util.find_spec(name) for name in names)


HAS_DALI = _is_installed("nvidia") and _is_installed("nvidia.dali")


@pytest.fixture(
    params=[
        pytest.param("dali", marks=pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")),
        pytest.param(
            "nvjpeg",
            marks=pytest.mark.skipif(not _is_installed("torchvision"), reason="torchvision is not installed"),
        ),
    ]
)
def engine(request: pytest.FixtureRequest) -> DecodeEngine:
    return create(request.param, "jpeg", torch.cuda.current_device())


def photograph(number: int, width: int, height: int) -> bytes:
    """A JPEG with soft structure and some grain."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((width, height))
    grain = rng.normal(0, 6, (height, width, 1))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(
        file, "JPEG", quality=92
    )
    return file.getvalue()


COUNT = 24
BLOBS = [photograph(i, 300 + 5 * i, 220 + 7 * i) for i in range(COUNT)]
CROPS = np.array([(3 * i, 2 * i, 180 + 4 * i, 150 + 3 * i) for i in range(COUNT)], np.int32)
FLIPS = np.arange(COUNT) % 3 == 0


def decode(engine: DecodeEngine, blobs: list[bytes], side: int = 96) -> np.ndarray:
    out = np.zeros((len(blobs), side, side, 3), np.uint8)
    engine.decode_batch([memoryview(blob) for blob in blobs], CROPS[: len(blobs)], FLIPS[: len(blobs)], out)
    return out


@pytest.mark.parametrize("side", [96, 64])
def test_pixels_are_near_those_of_the_cpu(engine: DecodeEngine, side: int) -> None:
    """nvJPEG has its own IDCT and chroma; a wrong crop or flip would differ by tens of levels."""
    difference = np.abs(decode(engine, BLOBS, side).astype(int) - decode(create("turbojpeg"), BLOBS, side))
    assert difference.mean() <= 1.5 and np.quantile(difference, 0.999) <= 16


def test_a_bad_image_is_named_and_the_engine_goes_on(engine: DecodeEngine) -> None:
    expected = decode(engine, BLOBS)
    with pytest.raises(DecodeError) as caught:
        decode(engine, [*BLOBS[:7], b"no jpeg", *BLOBS[8:]])
    assert caught.value.position == 7
    assert np.array_equal(decode(engine, BLOBS), expected)


def test_threads_beside_a_busy_device(engine: DecodeEngine) -> None:
    expected = decode(engine, BLOBS)
    a = torch.randn(4096, 4096, device="cuda")
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(decode, engine, BLOBS) for _ in range(8)]
        for _ in range(50):
            a = torch.nn.functional.normalize(a @ a)
        assert all(np.array_equal(future.result(), expected) for future in futures)
    assert torch.isfinite(a).all()
