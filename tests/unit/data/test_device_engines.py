"""Engines of other houses: DALI, and nvJPEG's logic with a decoder on the CPU in its place."""

from __future__ import annotations

import importlib.util
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from data_trees import jpeg, picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from distrain.data.decode.culprit import blame, reason_of
from distrain.data.decode.engine import DecodeEngine, DecodeError
from distrain.data.decode.engines import create
from distrain.data.decode.nvjpeg import NvjpegEngine
from distrain.data.ingest.convert import Packed, PackOptions, convert
from distrain.data.loader import TrainLoader
from distrain.data.pack import pack
from distrain.data.settings import DataSettings
from distrain.data.store import Store
from distrain.errors import ConfigError, DataError

HAS_DALI = (
    importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
)
needs_dali = pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed (pip install 'distrain[dali]')")


def by_pillow(jpegs: list[torch.Tensor]) -> list[torch.Tensor]:
    """What `torchvision.io.decode_jpeg` does with a list: all or a RuntimeError."""
    found = []
    for data in jpegs:
        try:
            image = Image.open(io.BytesIO(data.numpy().tobytes())).convert("RGB")
        except OSError as error:
            raise RuntimeError(f"nvJPEG: {error}") from None
        found.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return found


@pytest.fixture(params=[pytest.param("dali", marks=needs_dali), "nvjpeg"])
def engine(request: pytest.FixtureRequest) -> DecodeEngine:
    if request.param == "dali":
        return create("dali")
    return NvjpegEngine(by_pillow, torch.device("cpu"))


IMAGES = [picture(i, 200 + 10 * i, 150 + 7 * i) for i in range(6)]
JPEGS = [jpeg(image) for image in IMAGES]
CROPS = np.array(
    [(0, 0, 200, 150), (5, 9, 48, 48), (100, 50, 30, 100), (0, 0, 1, 1), (3, 2, 160, 20), (249, 184, 1, 1)],
    np.int32,
)
FLIPS = np.array([False, True, True, False, True, False])


def decode(engine: DecodeEngine, blobs: list[bytes], crops: np.ndarray, flips: np.ndarray, side: int = 48):
    out = np.full((len(blobs), side, side, 3), 77, np.uint8)
    engine.decode_batch([memoryview(blob) for blob in blobs], crops, flips, out)
    return out


def assert_alike(got: np.ndarray, expected: np.ndarray) -> None:
    """The bound of all engines; at the edge of strongly reduced crops DALI differs by a dozen levels."""
    difference = np.abs(got.astype(int) - expected)
    assert difference.mean() <= 0.6 and difference.max() <= 16
    assert np.quantile(difference[:, 1:-1, 1:-1], 0.999) <= 8


@pytest.mark.parametrize("side", [48, 16])
def test_pixels_are_those_of_pillow(engine: DecodeEngine, side: int) -> None:
    expected = decode(create("turbojpeg"), JPEGS, CROPS, FLIPS, side)
    got = decode(engine, JPEGS, CROPS, FLIPS, side)
    assert_alike(got, expected)
    assert decode(engine, [], CROPS[:0], FLIPS[:0]).size == 0


def test_grey_and_indexed_images(engine: DecodeEngine) -> None:
    from distrain.data.decode import indexed, native

    grey = jpeg(picture(3, 90, 70).convert("L"))
    whole = np.array([(0, 0, 90, 70)], np.int32)
    out = decode(engine, [grey], whole, FLIPS[:1])
    assert (out == out[..., :1]).all() and out.std() > 5
    if not native.build_info()[0]:
        pytest.skip("only the native decoder makes indexed images, and it is not built")
    blob = indexed.index(JPEGS[0])
    assert blob is not None
    assert np.array_equal(
        decode(engine, [blob], CROPS[1:2], FLIPS[1:2]), decode(engine, JPEGS[:1], CROPS[1:2], FLIPS[1:2])
    )
    with pytest.raises(DecodeError, match="contradict its header") as caught:
        decode(engine, [JPEGS[0], blob[:40]], CROPS[:2], FLIPS[:2])
    assert caught.value.position == 1


@pytest.mark.parametrize("bad", [b"no jpeg", JPEGS[0][:200], b""], ids=["junk", "cut", "empty"])
def test_a_bad_image_is_found_and_the_engine_goes_on(engine: DecodeEngine, bad: bytes) -> None:
    blobs = [*JPEGS[:4], bad, JPEGS[5]]
    with pytest.raises(DecodeError) as caught:
        decode(engine, blobs, np.array([(0, 0, 9, 9)] * 6, np.int32), FLIPS)
    assert caught.value.position == 4 and caught.value.reason
    assert decode(engine, JPEGS, CROPS, FLIPS).std() > 5


@pytest.mark.parametrize("crop", [(0, 0, 201, 10), (-1, 0, 5, 5), (199, 0, 2, 2), (0, 0, 0, 5)])
def test_a_crop_outside_the_image_is_an_error(engine: DecodeEngine, crop: tuple[int, ...]) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(engine, JPEGS[:2], np.array([crop, (0, 0, 9, 9)], np.int32), FLIPS[:2])
    assert caught.value.position == 0


def test_threads_decode_at_once(engine: DecodeEngine) -> None:
    expected = decode(engine, JPEGS, CROPS, FLIPS)
    with ThreadPoolExecutor(3) as pool:
        for got in pool.map(lambda _: decode(engine, JPEGS, CROPS, FLIPS), range(9)):
            assert np.array_equal(got, expected)


@needs_dali
def test_batches_longer_than_a_run_of_the_pipeline() -> None:
    numbers = np.arange(150) % 6
    blobs = [JPEGS[i] for i in numbers]
    got = decode(create("dali"), blobs, CROPS[numbers], FLIPS[numbers], 16)
    one = decode(create("dali"), JPEGS, CROPS, FLIPS, 16)
    assert np.array_equal(got, one[numbers])
    blobs[140] = b"junk"
    with pytest.raises(DecodeError) as caught:
        decode(create("dali"), blobs, CROPS[numbers], FLIPS[numbers], 16)
    assert caught.value.position == 140


def test_in_the_loader_crops_are_the_same_and_bad_images_are_replaced_alike(
    engine: DecodeEngine, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = iter(range(41))

    def spoil(data: bytes, options: PackOptions) -> Packed:
        packed = convert(data, options)
        return packed if next(number) != 7 else Packed(packed.data[:200], packed.width, packed.height)

    monkeypatch.setattr("distrain.data.ingest.shard_writer.convert", spoil)
    pack(f"imagefolder:{tree}", tmp_path / "out")
    settings = DataSettings(
        train="-", val="-", batch_per_rank=8, image_size=16, threads=2, on_bad_image="skip", last_batch="wrap"
    )
    store = Store.open(tmp_path / "out", settings)
    loaders = [TrainLoader(store, settings, e, 0, 1, seed=3) for e in (engine, create("turbojpeg"))]
    for got, expected in zip(*(loader.epoch(0) for loader in loaders), strict=True):
        assert got.indices.tolist() == expected.indices.tolist()
        assert_alike(got.images.numpy(), expected.images.numpy())
    for loader in loaders:
        assert set(loader.bad_images) == {7}
        loader.close()
    failing = TrainLoader(store, settings.model_copy(update={"on_bad_image": "fail"}), engine, 0, 1, seed=3)
    with pytest.raises(DataError, match=r"shard-00000.bin, image 7 of the shard \(index 7\)"):
        list(failing.epoch(0))
    failing.close()


@given(st.integers(1, 70), st.sets(st.integers(0, 69)), st.integers(0, 50))
def test_the_first_image_that_fails_is_blamed(count: int, bad: set[int], first: int) -> None:
    def attempt(part: slice) -> None:
        found = sorted(i for i in bad if part.start <= first + i < part.stop)
        if found:
            raise RuntimeError(f"image {found[0]} is bad")

    got = blame("dali", slice(first, first + count), attempt, RuntimeError("all of it"))
    among = sorted(i for i in bad if i < count)
    if among:
        assert isinstance(got, DecodeError)
        assert (got.position, got.reason) == (first + among[0], f"image {among[0]} is bad")
    else:
        assert not isinstance(got, DecodeError)
        assert f"a batch of {count} images failed, and none of them fails alone: all of it" in str(got)


def test_reasons_without_the_traceback_around_them() -> None:
    text = "Critical error in pipeline:\nError in x\n  File y\n\nencountered:\n\nBad stream : \nNot valid."
    assert reason_of(RuntimeError(text)) == "Bad stream"
    assert reason_of(RuntimeError("just this")) == "just this"
    assert reason_of(RuntimeError()) == "RuntimeError"


def test_memory_of_the_device_is_no_fault_of_an_image() -> None:
    def full(jpegs: list[torch.Tensor]) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        decode(NvjpegEngine(full, torch.device("cpu")), JPEGS, CROPS, FLIPS)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"'nvjpeg' decodes on a GPU, and torch sees no GPU.*engine=auto"):
        create("nvjpeg", "jpeg", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match="this rank computes on the CPU"):
        create("nvjpeg")
    monkeypatch.setitem(sys.modules, "torchvision.io", None)
    with pytest.raises(ConfigError, match=r"needs torchvision, which cannot be imported.*belongs to torch"):
        create("nvjpeg", "jpeg", 0)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(ConfigError, match=r"'dali' is not available.*pip install 'distrain\[dali\]'"):
        create("dali")
    for name in ("dali", "nvjpeg"):
        with pytest.raises(ConfigError, match=f"'{name}' decodes JPEGs, and the pack is raw"):
            create(name, "raw")
