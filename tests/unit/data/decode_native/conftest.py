from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # test modules here import jpeg_pictures

from distrain.data.decode import native
from distrain.data.decode.library import library


@pytest.fixture(scope="session", autouse=True)
def _built():
    built, reason = native.build_info()
    if not built:
        pytest.skip(f"native decoder: {reason}")


@pytest.fixture(scope="session")
def engine():
    return native.load()


@pytest.fixture(scope="session")
def portable_engine():
    return native.NativeEngine(library("portable"))
