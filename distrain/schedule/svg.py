"""The few SVG elements that pictures of schedules are made of. Lengths are pixels."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
INK = "#1b1f24"
FAINT = "#6b7280"
RULE = "#e3e6ea"


def number(value: float) -> str:
    """Write a length with at most one decimal, so that files stay small and diffs readable."""
    return f"{value:.1f}".removesuffix(".0")


def text(
    x: float,
    y: float,
    words: str,
    size: float = 12,
    anchor: str = "start",
    fill: str = INK,
    bold: bool = False,
) -> str:
    """Return a line of text whose baseline starts, is centred on, or ends at (x, y)."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{number(x)}" y="{number(y)}" font-size="{number(size)}" text-anchor="{anchor}" '
        f'fill="{fill}"{weight}>{escape(words)}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float, stroke: str = RULE, width: float = 1) -> str:
    """Return a straight line."""
    return (
        f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" '
        f'stroke="{stroke}" stroke-width="{number(width)}"/>'
    )


def circle(x: float, y: float, radius: float, fill: str, stroke: str, width: float = 1.5) -> str:
    """Return a disc with an outline."""
    return (
        f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" fill="{fill}" '
        f'stroke="{stroke}" stroke-width="{number(width)}"/>'
    )


def rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    """Return a filled rectangle without an outline."""
    return (
        f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}" '
        f'fill="{fill}"/>'
    )


def path(d: str, stroke: str, width: float, dashed: bool = False, opacity: float = 1.0) -> str:
    """Return a line along a path."""
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    faint = f' stroke-opacity="{opacity:g}"' if opacity < 1 else ""
    return f'<path d="{d}" fill="none" stroke="{stroke}" stroke-width="{number(width)}"{dash}{faint}/>'


def group(name: str, children: Iterable[str]) -> str:
    """Return elements as one group of a class."""
    return "\n".join([f'<g class="{escape(name)}">', *children, "</g>"])


def document(width: float, height: float, title: str, children: Iterable[str]) -> str:
    """Return a whole SVG file on white ground."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{number(width)}" height="{number(height)}" '
        f'viewBox="0 0 {number(width)} {number(height)}" role="img" font-family="{FONT}">'
    )
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", ground, *children, "</svg>"]) + "\n"
