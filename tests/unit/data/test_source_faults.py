"""What looks like an image of a source and is none, or cannot be told: said, never left out in silence."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from data_trees import jpeg, picture, write_tree

from distrain.data.ingest.listing import Listing
from distrain.data.ingest.sources import list_source
from distrain.data.pack import pack
from distrain.errors import DataError

IMAGE = jpeg(picture(1))


def write_tar(path: Path, entries: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def named(listing: Listing) -> list[tuple[str, str]]:
    return [(image.name, listing.classes[image.label]) for image in listing.images]


def test_names_with_several_dots_need_a_class_with_the_same_dots(tmp_path: Path) -> None:
    entries = [("d.1/ph.v0.jpg", IMAGE), ("d.1/ph.v0.cls", b"ape"), ("d.1/ph.v1.cls", b"bee")]
    entries += [("d.1/ph.v1.jpg", IMAGE), ("m.jpg", IMAGE), ("m.cls", b"cat"), ("m.mask.png", IMAGE)]
    entries += [("m.meta.json", b"not read"), ("._m.jpg", b"of another system")]
    write_tar(tmp_path / "a.tar", entries)
    listing = list_source(f"webdataset:{tmp_path}/a.tar")
    expected = [("a.tar/d.1/ph.v0.jpg", "ape"), ("a.tar/d.1/ph.v1.jpg", "bee"), ("a.tar/m.jpg", "cat")]
    assert named(listing) == expected
    assert listing.left_out == (
        ("a.tar/m.mask.png", "several dots in its name, and no .cls with the same ones"),
    )
    manifest = pack(f"webdataset:{tmp_path}/a.tar", tmp_path / "out")
    assert [skip.source for skip in manifest.skipped] == ["a.tar/m.mask.png"] and manifest.count == 3


def test_a_second_image_of_a_sample_a_class_alone_and_a_link_are_told(tmp_path: Path) -> None:
    entries = [("m.jpg", IMAGE), ("m.cls", b"0"), ("m.png", IMAGE), ("n.cls", b"0"), ("n.avif", b"x")]
    write_tar(tmp_path / "a.tar", entries)
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        link = tarfile.TarInfo("o.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "m.jpg"
        tar.addfile(link)
    listing = list_source(f"webdataset:{tmp_path}/a.tar")
    assert named(listing) == [("a.tar/m.jpg", "0")]
    assert dict(listing.left_out) == {
        "a.tar/m.png": "a second image of one sample: a.tar/m.jpg is taken",
        "a.tar/n.cls": "a class without an image",
        "a.tar/o.jpg": "its entry is a link or a device",
    }
    write_tar(tmp_path / "b.tar", [("m.v0.jpg", IMAGE), ("m.cls", b"0")])
    with pytest.raises(DataError, match=r"no image in these files \(left out: b.tar/m.v0.jpg, several dots"):
        list_source(f"webdataset:{tmp_path}/b.tar")


@pytest.mark.parametrize("end", ["border", "header", "data", "garbage", "one block", "two files"])
def test_a_tar_is_read_to_its_end(tmp_path: Path, end: str) -> None:
    """Four entries; the header of the last one begins at byte `last`."""
    write_tar(tmp_path / "w.tar", [("1.jpg", IMAGE), ("1.cls", b"0"), ("2.jpg", IMAGE), ("2.cls", b"0")])
    whole = (tmp_path / "w.tar").read_bytes()
    with tarfile.open(tmp_path / "w.tar") as tar:
        members = tar.getmembers()
    last, after = members[2].offset, members[3].offset + 1024
    content, problem, told = {
        "border": (whole[:after], "", f"perhaps truncated: no end-of-archive at byte {after}; compare it"),
        "header": (whole[: last + 100], "w.tar: it is truncated or damaged: .*; copy it again", ""),
        "data": (whole[: last + 700], "w.tar: it is truncated or damaged: unexpected end", ""),
        "garbage": (whole[:last] + b"x" * 9999, f"w.tar: .*at byte {last} no entry begins", ""),
        "one block": (whole[: after + 512], "", ""),
        "two files": (whole * 2, "", f"bytes after its end, from byte {after} on, are not read"),
    }[end]
    (tmp_path / "w.tar").write_bytes(content)
    if problem:
        with pytest.raises(DataError, match=problem):
            list_source(f"webdataset:{tmp_path}/w.tar")
        return
    listing = list_source(f"webdataset:{tmp_path}/w.tar")
    assert len(listing.images) == 2
    assert [(name, reason.partition("; join")[0]) for name, reason in listing.left_out] == (
        [("w.tar", told)] if told else []
    )


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("1.cls", b"\xff\xfe\x00", "a.tar: 1.cls: the class is no UTF-8 text: invalid start byte at byte 0"),
        ("1.json", b'{"label": ', "a.tar: 1.json: it is no JSON"),
        ("1.json", b"\x80", "a.tar: 1.json: the class is no UTF-8 text"),
    ],
)
def test_a_class_that_is_no_text(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    write_tar(tmp_path / "a.tar", [("1.jpg", IMAGE), (name, content)])
    with pytest.raises(DataError, match=problem):
        list_source(f"webdataset:{tmp_path}/a.tar")


def test_links_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "src", {"ape": 2, "bee": 1, "other": 1})
    (root / "other").rename(tmp_path / "other")
    (root / "ape/loop").symlink_to(".")
    (root / "bee/up").symlink_to("..")
    (root / "bee/also").symlink_to(tmp_path / "other")
    listing = list_source(f"imagefolder:{root}")
    assert named(listing) == [
        *(("ape/000.jpg", "ape"), ("ape/001.jpg", "ape")),
        *(("bee/000.jpg", "bee"), ("bee/also/000.jpg", "bee")),
    ]
    assert listing.left_out == (
        ("ape/loop", "linked in a circle or twice: it is the folder ape"),
        ("bee/up", f"linked in a circle or twice: it is the folder {root}"),
    )
    manifest = pack(f"imagefolder:{root}", tmp_path / "out")
    assert manifest.class_counts == (2, 2) and [skip.source for skip in manifest.skipped] == [
        "ape/loop",
        "bee/up",
    ]
    (root / "self").symlink_to(".")
    with pytest.raises(DataError, match="src/self: this class is a link to a folder that it lies in"):
        list_source(f"imagefolder:{root}")


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path / "src", {"ape/inner": 1, "bee": 1})
    scan = os.scandir

    def refuse(place: str) -> object:
        if str(place).endswith("inner"):
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError, match=r"ape/inner: it cannot be read: Permission denied; get permission"):
        list_source(f"imagefolder:{root}")


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "src", {"ape": 1})
    os.mkfifo(root / "ape/pipe.jpg")
    manifest = pack(f"imagefolder:{root}", tmp_path / "out")
    assert [(s.source, s.reason) for s in manifest.skipped] == [("ape/pipe.jpg", "not a plain file")]
    for kind in ("webdataset", "parquet"):
        with pytest.raises(DataError, match=r"ape/pipe.jpg: it is not a plain file"):
            list_source(f"{kind}:{root}/ape/pipe*")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"src\xe9")
    write_tree(root, {os.fsdecode(b"caf\xe9"): 1})
    (root / os.fsdecode(b"caf\xe9/\xff.jpg")).write_bytes(b"x")
    manifest = pack(f"imagefolder:{root}", tmp_path / os.fsdecode(b"out\xe9"))
    assert manifest.classes == ("caf\\udce9",) and manifest.count == 1 and manifest.name == "out\\udce9"
    assert [skip.source for skip in manifest.skipped] == ["caf\\udce9/\\udcff.jpg"]


def test_a_list_with_a_mark_and_a_line_without_a_class(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(IMAGE)
    (tmp_path / "list").write_text("\ufeffx.jpg\tape\n", encoding="utf-8")
    assert pack(f"list:{tmp_path}/list", tmp_path / "out").count == 1
    (tmp_path / "list").write_text("x.jpg ape\na b.JPG\n")
    with pytest.raises(DataError, match=r"list:2: 'a b.JPG' has no class; write PATH, a tab and the class"):
        list_source(f"list:{tmp_path}/list")
    (tmp_path / "list").write_text("x.jpg\tb.jpg\n")
    assert list_source(f"list:{tmp_path}/list").classes == ("b.jpg",)


def write_parquet(path: Path, labels: list[object], metadata: object) -> None:
    pa = pytest.importorskip("pyarrow", reason="the optional dependency 'parquet' is not installed")
    import pyarrow.parquet as pq

    table = pa.table({"image": [IMAGE] * len(labels), "label": labels})
    if metadata is not None:
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        table = table.replace_schema_metadata({"huggingface": text})
    pq.write_table(table, path)


def features(names: object) -> dict[str, object]:
    return {"info": {"features": {"label": {"names": names}}}}


@pytest.mark.parametrize(
    ("labels", "metadata", "problem"),
    [
        (["cat", "ape"], features(["ape", "bee"]), "row 0: label='cat' is no class"),
        ([1.5], features(["ape", "bee"]), "row 0: label=1.5 is no class"),
        ([-1], features(["ape", "bee"]), "row 0: label=-1 is no class"),
        ([0], "{", "its metadata 'huggingface' is damaged: no JSON"),
        ([0], [1], "is damaged: no table around 'info'"),
        ([0], {"info": 3}, "is damaged: no table around 'features'"),
        ([0], features("ape"), "is damaged: the names of the classes are no list of different texts"),
        ([0], features(["ape", "ape"]), "no list of different texts"),
    ],
)
def test_parquet_labels_and_names_that_do_not_fit(
    tmp_path: Path, labels: list[object], metadata: object, problem: str
) -> None:
    write_parquet(tmp_path / "a.parquet", labels, metadata)
    with pytest.raises(DataError, match=problem):
        list_source(f"parquet:{tmp_path}/a.parquet")


def test_parquet_labels_are_numbers_or_names(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", ["bee", "ape"], features(["ape", "bee"]))
    assert [c for _, c in named(list_source(f"parquet:{tmp_path}/a.parquet"))] == ["bee", "ape"]
    write_parquet(tmp_path / "a.parquet", [1, 0], None)  # the names come with the second file
    write_parquet(tmp_path / "b.parquet", [1.0], features(["ape", "bee"]))
    assert [c for _, c in named(list_source(f"parquet:{tmp_path}/*"))] == ["bee", "ape", "bee"]
    write_parquet(tmp_path / "c.parquet", [1], features(["ape", "cow"]))
    with pytest.raises(DataError, match=r"c.parquet: its names of the classes differ"):
        list_source(f"parquet:{tmp_path}/*")
