"""Pictures: well-formed, and showing every rank, link and message."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree

import pytest

from distrain.schedule.draw import HUES, draw
from distrain.schedule.ir import Op, Schedule
from distrain.schedule.registry import generate, names

SVG = "{http://www.w3.org/2000/svg}"


def rows(picture: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(picture).findall(f"{SVG}g")


def outline(schedule: Schedule) -> str:
    """What a picture is made of, one line a group."""
    lines = []
    for row in rows(draw(schedule)):
        kinds = Counter(child.tag.removeprefix(SVG) for child in row)
        lines.append(f"{row.get('class')}: " + ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("size", [1, 2, 5, 16, 33])
def test_pictures_hold_all_messages_inside_the_frame(name: str, size: int) -> None:
    schedule = generate(name, size, 3)
    picture = draw(schedule)
    root = ElementTree.fromstring(picture)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert len(rows(picture)) == schedule.colors
    for color, row in enumerate(rows(picture)):
        messages = {
            (number, t.src, t.dst, t.op)
            for number, step in enumerate(schedule.steps)
            for t in step
            if t.color == color
        }
        adding = {(src, dst) for _, src, dst, op in messages if op is Op.REDUCE}
        copying = {(src, dst) for _, src, dst, op in messages if op is Op.COPY}
        links = adding | {(src, dst) for src, dst in copying if (dst, src) not in adding}
        circles = row.findall(f"{SVG}circle")
        assert len(circles) == size + len(messages)
        assert len(row.findall(f"{SVG}path")) == len(messages) + 2 * len(links)
        for circle in circles:
            assert 0 < float(circle.attrib["cx"]) < width and 0 < float(circle.attrib["cy"]) < height
        assert HUES[color] in ElementTree.tostring(row, "unicode")


def test_golden_outlines(matches_golden) -> None:  # type: ignore[no-untyped-def]
    for name in names():
        matches_golden(f"{name}_6x3.outline", outline(generate(name, 6, 3)))
