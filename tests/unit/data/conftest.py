"""A small tree of images and a pack of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # test modules here import data_trees

from data_trees import write_tree

from distrain.data.format import Manifest
from distrain.data.ingest.convert import PackOptions
from distrain.data.pack import pack


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree") / "train", {"ape": 13, "bee": 17, "cat": 11})


@pytest.fixture()
def packed(tree: Path, tmp_path: Path) -> tuple[Path, Manifest]:
    """A pack of 41 images in 3 classes; a copy for each test, which may damage it."""
    out = tmp_path / "pack"
    return out, pack(f"imagefolder:{tree}", out, PackOptions())
