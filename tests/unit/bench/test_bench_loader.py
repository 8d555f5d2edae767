"""The loader benchmark: its pictures, the check of pixels, the lines that it prints."""

from __future__ import annotations

import numpy as np
import pytest

from distrain.bench import images, loader
from distrain.data.decode import native
from distrain.errors import UsageError


@pytest.fixture(scope="module")
def work():
    return loader.make_workload("short256", 32, threads=2, side=64)


def test_pictures_are_seeded_and_have_the_size_of_photographs():
    photos = images.photographs()
    first, again, other = (images.original(seed, photos) for seed in (5, 5, 6))
    assert first == again != other
    width, height = images.size_of(first)
    assert min(width, height) >= 150 and max(width, height) <= 640
    assert 2 <= 8 * len(first) / (width * height) <= 8  # bits a pixel
    assert min(images.size_of(images.short256(first))) == 256


def test_lines_of_one_run():
    lines = list(loader.run("short256", 1, "turbojpeg,webdataset", count=32, passes=1))
    by_name = {line["name"]: line for line in lines}
    assert set(by_name) == {"native", "native-plain", "distrain", "turbojpeg", "webdataset"}
    timed = ["turbojpeg"] + (["native", "native-plain", "distrain"] if native.build_info()[0] else [])
    for name in timed:
        assert by_name[name]["correct"] is True and by_name[name]["images_per_cpu_s"] > 0
        assert by_name[name]["set"] == "short256" and by_name[name]["threads"] == 1
    if "distrain" in timed:
        assert 0 < by_name["distrain"]["outside_kernel"] < 1


def test_a_wrong_contender_is_not_timed(work):
    class Wrong:
        name, exact = "wrong", True

        def batches(self):
            yield np.zeros((32, 64, 64, 3), np.uint8)

    line = loader.check(Wrong(), work, np.full((32, 64, 64, 3), 9, np.uint8))
    assert line["correct"] is False and line["error"] == "wrong pixels"


def test_threads_keep_the_order(work):
    from distrain.bench.loader_contenders import fallback

    got = np.concatenate([batch.copy() for batch in fallback(work).batches()])
    assert loader.check(fallback(work), work, got)["mean_difference"] == 0


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="turbojpeg"):
        next(loader.run("orig", 1, "turbojpg"))
    with pytest.raises(UsageError, match="orig"):
        loader.make_workload("origs", 32, 1)
