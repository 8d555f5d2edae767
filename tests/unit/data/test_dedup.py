"""Near-duplicates: the curve, the greedy choice, the manifest, the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_trees import jpeg, multi_shard, odd_exif
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from distrain.data.ingest import dedup
from distrain.data.ingest.convert import PackOptions
from distrain.data.ingest.dedup import Rule, compare, differing_bits, find_duplicates
from distrain.data.ingest.pairs_page import write_page
from distrain.data.ingest.sources import list_source
from distrain.data.pack import pack
from distrain.errors import DataError, UsageError

pytest.importorskip("imagehash", reason="the optional dependency 'dedup' is not installed")


def scene(number: int, side: int = 96) -> Image.Image:
    """A picture with coarse structure: what perceptual hashes look at."""
    small = np.random.default_rng(number).integers(0, 255, (6, 6, 3), np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five scenes in two classes; two of them again, smaller and coded worse; one under both labels."""
    root = tmp_path_factory.mktemp("dedup") / "src"
    for name, numbers in (("ape", (0, 1, 2)), ("bee", (3, 4, 0))):
        (root / name).mkdir(parents=True)
        for number in numbers:
            (root / name / f"{number}.jpg").write_bytes(jpeg(scene(number)))
    (root / "ape/z-again.jpg").write_bytes(jpeg(scene(1, 70)))
    scene(4).save(root / "bee/z-worse.jpg", quality=20)
    (root / "bee/zz-broken.jpg").write_bytes(b"\xff\xd8 no image")
    return root


@given(
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 15), min_size=1, max_size=40),
    st.integers(0, 8),
)
@settings(max_examples=80, deadline=None)
def test_the_greedy_choice_by_its_definition(values: list[int], distance: int) -> None:
    """Walk through the images; one is left out if an earlier one that was kept is close enough."""
    dropped, pairs = compare(np.array(values, np.uint64), distance, 10)
    for limit in range(11):
        kept: list[int] = []
        out: list[int] = []
        for image, value in enumerate(values):
            alike = [(bin(value ^ values[k]).count("1"), k) for k in kept]
            (out if any(bits <= limit for bits, _ in alike) else kept).append(image)
        assert dropped[limit] == len(out)
        if limit == distance:
            assert [image for image, _, _ in pairs] == out
            for image, keeper, bits in pairs:
                assert keeper in kept and keeper < image
                assert bits == bin(values[image] ^ values[keeper]).count("1") <= distance


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=9), st.integers(0, 2**64 - 1))
def test_differing_bits(values: list[int], other: int) -> None:
    found = differing_bits(np.array(values, np.uint64), np.uint64(other))
    assert found.tolist() == [bin(value ^ other).count("1") for value in values]


@pytest.mark.parametrize("method", ["phash", "dhash", "ahash"])
def test_copies_are_found_within_their_class(tree: Path, method: str) -> None:
    listing = list_source(f"imagefolder:{tree}")
    found = find_duplicates(listing, Rule(method, 8))
    pairs = [(listing.images[i].name, listing.images[k].name) for i, k, _ in found.duplicates]
    assert pairs == [("ape/z-again.jpg", "ape/1.jpg"), ("bee/z-worse.jpg", "bee/4.jpg")]
    assert found.compared == 8 and found.curve[8] == 2 and len(found.curve) == 17
    assert list(found.curve) == sorted(found.curve)


def test_a_pack_without_duplicates(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    multi_shard(monkeypatch)
    told = []
    manifest = pack(f"imagefolder:{tree}", tmp_path / "out", PackOptions(dedup="phash:8"), tell=told.append)
    assert manifest.count == 6 and manifest.class_counts == (3, 3)
    assert [(d.source, d.keeper) for d in manifest.duplicates] == [
        ("ape/z-again.jpg", "ape/1.jpg"),
        ("bee/z-worse.jpg", "bee/4.jpg"),
    ]
    assert manifest.options["dedup"] == "phash:8" and manifest.duplicates_at == told[0].curve
    assert [skip.source for skip in manifest.skipped] == ["bee/zz-broken.jpg"]
    assert not (tmp_path / "out/duplicates.json").exists()


def test_a_pack_that_goes_on_compares_nothing_again(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    multi_shard(monkeypatch)

    def full(*arguments: object) -> None:
        raise DataError("disk", "it is full", "make room")

    with monkeypatch.context() as patch:
        patch.setattr("distrain.data.pack.run_jobs", full)
        with pytest.raises(DataError, match="full"):
            pack(f"imagefolder:{tree}", tmp_path / "out", PackOptions(dedup="phash:8"))
    monkeypatch.setattr(dedup, "find_duplicates", lambda *a: pytest.fail("it compared again"))
    assert pack(f"imagefolder:{tree}", tmp_path / "out", PackOptions(dedup="phash:8")).count == 6


def test_a_dry_run_writes_a_page_and_packs_nothing(tree: Path, tmp_path: Path) -> None:
    from distrain.cli import app

    arguments = ["pack", f"imagefolder:{tree}", str(tmp_path / "out"), "--dedup", "phash:8", "--dry-run"]
    result = CliRunner().invoke(app, [*arguments, "--workers", "1", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["duplicates"] == 2 and told["images"] == 8 and told["duplicates_at"][8] == 2
    page = Path(told["page"]).read_text()
    assert page.count("<img src=data:image/jpeg;base64,") == 4
    assert "kept: bee/4.jpg" in page and "left out: bee/z-worse.jpg" in page
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fhash:3", "did you mean"),
        ("phash", "no distance"),
        ("phash:33", "no distance"),
        ("phash:-1", "no dis"),
    ],
)
def test_rules_that_make_no_sense(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        Rule.parse(text)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "imagehash", None)
    with pytest.raises(UsageError, match=r"pip install 'distrain\[dedup\]'"):
        pack(f"imagefolder:{tmp_path}", tmp_path / "out", PackOptions(dedup="phash:2"))


def test_odd_exif_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "src/ape").mkdir(parents=True)
    out = tmp_path / "page.html"
    for name, exif in (("a", odd_exif(6)), ("b", odd_exif(6)), ("c", odd_exif(1))):
        scene(0).save(tmp_path / f"src/ape/{name}.jpg", exif=exif)
    listing = list_source(f"imagefolder:{tmp_path / 'src'}")
    rule = Rule.parse("phash:4")
    found = find_duplicates(listing, rule)
    assert found.compared == 3 and [pair[:2] for pair in found.duplicates] == [(1, 0)]
    write_page(out, "src", listing, rule, found)
    assert out.read_text().count("<img") == 2


def test_whatever_pillow_raises_leaves_no_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(image: Image.Image) -> Image.Image:
        raise TypeError("an odd tag")

    (tmp_path / "src/ape").mkdir(parents=True)
    scene(0).save(tmp_path / "src/ape/a.jpg")
    listing = list_source(f"imagefolder:{tmp_path / 'src'}")
    monkeypatch.setattr("distrain.data.ingest.dedup.upright", fails)
    assert find_duplicates(listing, Rule.parse("phash:4")).compared == 0
