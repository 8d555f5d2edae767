"""What the tests of this folder share: worlds to try, and golden files compared whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def matches_golden() -> Callable[[str, str], None]:
    """Compare a text with a file of `golden/`, whole; a missing file is a failure that shows the text."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if not path.is_file():
            pytest.fail(f"{path} is missing; it should hold, if you find this right:\n{text}")
        assert text == path.read_text()

    return check
