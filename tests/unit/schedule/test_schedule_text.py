"""The text form."""

from __future__ import annotations

import pytest

from distrain.errors import UsageError
from distrain.schedule.ir import Collective, Op, Schedule, Transfer
from distrain.schedule.text import parse, to_text

TEXT = """\
hand reduce_scatter ranks=3 colors=2 chunks=3 bit_identical=no
step 0
  color 1: 0>1 +2, 2>1 =0
  color 0: 1>2 +1 =2
  color 1: 1>0 +1
step 1
"""


def test_every_field_is_read() -> None:
    assert parse(TEXT) == Schedule(
        "hand",
        Collective.REDUCE_SCATTER,
        world_size=3,
        colors=2,
        chunks=3,
        steps=(
            (
                Transfer(1, 2, 0, 1, Op.REDUCE),
                Transfer(1, 0, 2, 1, Op.COPY),
                Transfer(0, 1, 1, 2, Op.REDUCE),
                Transfer(0, 2, 1, 2, Op.COPY),
                Transfer(1, 1, 1, 0, Op.REDUCE),
            ),
            (),
        ),
        bit_identical=False,
    )
    assert to_text(parse(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("hand reduce_scatter", "hand reduce", 1),
        ("step 0", "step 1", 2),
        ("step 0", "", 2),
        ("color 1: 0>1", "color x: 0>1", 3),
        ("0>1 +2", "0>1 *2", 3),
        ("2>1 =0", "2>1=0", 3),
    ],
)
def test_bad_line_is_named(old: str, new: str, line: int) -> None:
    with pytest.raises(UsageError, match=f"schedule text, line {line}: .* is not understood"):
        parse(TEXT.replace(old, new, 1))


def test_empty_text() -> None:
    with pytest.raises(UsageError, match="line 1: '' is not understood"):
        parse("")
