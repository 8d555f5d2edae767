"""Pictures of schedules: for each color who talks to whom, and when.

Left of each row the ranks stand on a circle with an arrow for every link over which the color adds;
links that only carry finished sums are dashed, and left out where they go back over an arrow. Ranks
that add for others are filled. Right of it every rank is a line and time runs to the right, one column
a step: a stroke leaves the sender's line at the start of a step and reaches the receiver's at its end,
in a filled dot where the receiver adds and a hollow one where it copies. One chunk is drawn strong, so
that the eye can follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import cos, hypot, pi, sin

from distrain.schedule import svg
from distrain.schedule.ir import Op, Schedule

# Okabe and Ito's palette, told apart by colour-blind readers, without the yellow that white swallows.
HUES = ("#0072b2", "#d55e00", "#009e73", "#a6417d", "#b07d00", "#4a90c2", "#5b4b8a", "#7a3b12")

_MARGIN = 28.0
_HEADER = 84.0
_AXIS = 34.0  # above the lines of a row: its name and the numbers of the steps
_GAP = 30.0  # between rows
_LABELS = 30.0  # left of the lines: numbers of the ranks

_MARK = "#c3c9d0"  # arcs and brackets of the nodes
_FOLLOWED = 0  # the chunk whose way is drawn strong

_NODE_LABELS = 46.0  # further left: names of the nodes

Link = tuple[int, int]


@dataclass(frozen=True)
class _Layout:
    """Where things go, from the number of ranks, steps and colors."""

    ranks: int
    steps: int
    colors: int
    nodes: tuple[int, ...] = ()

    @property
    def pitch(self) -> float:
        """Distance between the lines of two ranks."""
        return min(34.0, max(9.0, 230.0 / self.ranks))

    @property
    def column(self) -> float:
        """Width of a step."""
        return min(90.0, max(14.0, 560.0 / max(1, self.steps)))

    @property
    def lanes(self) -> float:
        """Height of all lines of a row."""
        return self.pitch * (self.ranks - 1)

    @property
    def disc(self) -> float:
        """Height and width of a circle of ranks."""
        return max(self.lanes, 160.0 if self.ranks <= 8 else 230.0)

    @property
    def row(self) -> float:
        return _AXIS + self.disc + _GAP

    @property
    def plot_x(self) -> float:
        return _MARGIN + self.disc + 48.0 + _LABELS + (_NODE_LABELS if self.nodes else 0)

    @property
    def width(self) -> float:
        return max(self.plot_x + self.column * max(1, self.steps) + _MARGIN, 640.0)

    @property
    def height(self) -> float:
        return _HEADER + self.row * self.colors

    def top(self, color: int) -> float:
        """Upper edge of a row's lines and circle."""
        return _HEADER + self.row * color + _AXIS

    def lane(self, color: int, rank: int) -> float:
        """Height of a rank's line; the lines stand in the middle of the row."""
        return self.top(color) + (self.disc - self.lanes) / 2 + self.pitch * rank

    def stand(self, color: int, rank: int) -> tuple[float, float]:
        """Middle of a rank on the circle; rank 0 at the top, then clockwise."""
        radius = self.disc / 2 - (18 if self.nodes else 12)
        angle = 2 * pi * rank / self.ranks - pi / 2
        x, y = _MARGIN + self.disc / 2, self.top(color) + self.disc / 2
        return x + radius * cos(angle), y + radius * sin(angle)


def draw(schedule: Schedule, nodes: Sequence[int] | None = None) -> str:
    """Return an SVG picture of a Schedule, one row for each color.

    Args:
        schedule: what to draw.
        nodes: ``nodes[r]`` is the node of rank ``r``, to mark which ranks live together.
    """
    layout = _Layout(schedule.world_size, len(schedule.steps), schedule.colors, tuple(nodes or ()))
    rows = [
        svg.group(
            f"color-{color}",
            [*_node_marks(layout, color), *_circle(schedule, layout, color), *_plot(schedule, layout, color)],
        )
        for color in range(schedule.colors)
    ]
    title = f"{schedule.name}, {schedule.collective.value} on {schedule.world_size} ranks"
    return svg.document(layout.width, layout.height, title, [*_header(schedule), *rows])


def _node_marks(layout: _Layout, color: int) -> list[str]:
    """A grey arc around the ranks of a node on the circle, and a bracket beside their lines."""
    out: list[str] = []
    middle_x, middle_y = _MARGIN + layout.disc / 2, layout.top(color) + layout.disc / 2
    around, n = layout.disc / 2, svg.number
    for node, run in groupby(range(len(layout.nodes)), key=lambda rank: layout.nodes[rank]):
        ranks = list(run)
        first, last = ((2 * pi * r / layout.ranks - pi / 2) for r in (ranks[0] - 0.32, ranks[-1] + 0.32))
        wide = int(last - first > pi)
        arc = (
            f"M{n(middle_x + around * cos(first))},{n(middle_y + around * sin(first))} "
            f"A{n(around)},{n(around)} 0 {wide} 1 "
            f"{n(middle_x + around * cos(last))},{n(middle_y + around * sin(last))}"
        )
        top, bottom = layout.lane(color, ranks[0]) - 5, layout.lane(color, ranks[-1]) + 5
        x = layout.plot_x - _LABELS
        out += [
            svg.path(arc, _MARK, 3.5),
            svg.line(x, top, x, bottom, _MARK, 3.5),
            svg.text(x - 7, (top + bottom) / 2 + 3.5, f"node {node}", 10, "end", svg.FAINT),
        ]
    return out


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _header(schedule: Schedule) -> list[str]:
    facts = ", ".join(
        [
            schedule.collective.value.replace("_", "-"),
            _plural(schedule.world_size, "rank"),
            _plural(schedule.colors, "color"),
            _plural(len(schedule.steps), "step"),
            f"payload in {_plural(schedule.colors * schedule.chunks, 'slot')}",
        ]
    )
    y = 66.0
    legend = [
        svg.circle(_MARGIN + 5, y, 3.5, svg.FAINT, svg.FAINT),
        svg.text(_MARGIN + 14, y + 4, "arrives and is added", 11, fill=svg.FAINT),
        svg.circle(_MARGIN + 157, y, 3.5, "#ffffff", svg.FAINT),
        svg.text(_MARGIN + 166, y + 4, "arrives and replaces", 11, fill=svg.FAINT),
    ]
    if schedule.chunks > 1 and schedule.steps:
        legend += [
            svg.line(_MARGIN + 303, y, _MARGIN + 325, y, svg.FAINT, 2.6),
            svg.text(_MARGIN + 332, y + 4, f"the way of chunk {_FOLLOWED}", 11, fill=svg.FAINT),
        ]
    return [
        svg.text(_MARGIN, 30, schedule.name, 18, bold=True),
        svg.text(_MARGIN, 48, facts, 12, fill=svg.FAINT),
        *legend,
    ]


def _hue(color: int) -> str:
    return HUES[color % len(HUES)]


def _circle(schedule: Schedule, layout: _Layout, color: int) -> list[str]:
    """Ranks on a circle, an arrow for each link; ranks that add for others are filled."""
    mine = [t for step in schedule.steps for t in step if t.color == color]
    adding = {(t.src, t.dst) for t in mine if t.op is Op.REDUCE}
    copying = {(t.src, t.dst) for t in mine if t.op is Op.COPY}
    links = adding | {(src, dst) for src, dst in copying if (dst, src) not in adding}
    radius = min(9.5, max(4.0, 0.9 * layout.disc / schedule.world_size))
    out: list[str] = []
    for src, dst in sorted(links):
        out += _arrow(layout, color, (src, dst), radius, (dst, src) in links, (src, dst) not in adding)
    adders = {dst for _, dst in adding}
    for rank in range(schedule.world_size):
        x, y = layout.stand(color, rank)
        filled = rank in adders
        out.append(svg.circle(x, y, radius, _hue(color) if filled else "#ffffff", _hue(color)))
        if radius >= 6:
            ink = "#ffffff" if filled else svg.INK
            out.append(svg.text(x, y + radius * 0.38, str(rank), radius * 1.1, "middle", ink, bold=True))
    return out


def _arrow(layout: _Layout, color: int, link: Link, radius: float, bent: bool, dashed: bool) -> list[str]:
    """An arrow between two ranks, bent where its counterpart in the other direction exists."""
    (x1, y1), (x2, y2) = layout.stand(color, link[0]), layout.stand(color, link[1])
    length = hypot(x2 - x1, y2 - y1)
    bend = min(9.0, 0.09 * length) if bent else 0.0
    cx, cy = (x1 + x2) / 2 - (y2 - y1) / length * bend, (y1 + y2) / 2 + (x2 - x1) / length * bend
    # Tangents at both ends of the curve: from the ends to its control point.
    out, back = hypot(cx - x1, cy - y1), hypot(cx - x2, cy - y2)
    ux, uy = (x2 - cx) / back, (y2 - cy) / back
    tip_x, tip_y = x2 - ux * (radius + 1.5), y2 - uy * (radius + 1.5)
    size = min(6.5, 0.9 * radius)
    base_x, base_y = tip_x - ux * size, tip_y - uy * size
    half = 0.48 * size
    start_x, start_y = x1 + (cx - x1) / out * radius, y1 + (cy - y1) / out * radius
    n = svg.number
    head = (
        f"M{n(tip_x)},{n(tip_y)} L{n(base_x - uy * half)},{n(base_y + ux * half)} "
        f"L{n(base_x + uy * half)},{n(base_y - ux * half)} Z"
    )
    curve = f"M{n(start_x)},{n(start_y)} Q{n(cx)},{n(cy)} {n(base_x)},{n(base_y)}"
    return [svg.path(curve, _hue(color), 1.5, dashed), f'<path d="{head}" fill="{_hue(color)}"/>']


def _plot(schedule: Schedule, layout: _Layout, color: int) -> list[str]:
    """Lines of the ranks over the steps, and a stroke for each message."""
    dot = min(3.6, layout.pitch * 0.24, layout.column * 0.2)
    quiet: list[str] = []
    followed: list[str] = []
    dots: list[str] = []
    for number, step in enumerate(schedule.steps):
        left, right = layout.plot_x + layout.column * number, layout.plot_x + layout.column * (number + 1)
        messages: dict[tuple[int, int, Op], set[int]] = {}
        for t in step:
            if t.color == color:
                messages.setdefault((t.src, t.dst, t.op), set()).add(t.chunk)
        for (src, dst, op), chunks in messages.items():
            y1, y2 = layout.lane(color, src), layout.lane(color, dst)
            d = f"M{svg.number(left)},{svg.number(y1)} L{svg.number(right - dot)},{svg.number(y2)}"
            if schedule.chunks == 1:
                followed.append(svg.path(d, _hue(color), 1.6))
            elif _FOLLOWED in chunks:
                followed.append(svg.path(d, _hue(color), 2.6))
            else:
                quiet.append(svg.path(d, _hue(color), 1.1, opacity=0.55))
            fill = _hue(color) if op is Op.REDUCE else "#ffffff"
            dots.append(svg.circle(right - dot, y2, dot, fill, _hue(color), 1.3))
    return [*_grid(schedule, layout, color), *quiet, *followed, *dots]


def _grid(schedule: Schedule, layout: _Layout, color: int) -> list[str]:
    first, last = layout.lane(color, 0), layout.lane(color, schedule.world_size - 1)
    out = [svg.text(_MARGIN, layout.top(color) - 16, f"color {color}", 13, fill=_hue(color), bold=True)]
    every = 1 if layout.column >= 18 else 2
    for number, step in enumerate(schedule.steps):
        x = layout.plot_x + layout.column * number
        if any(t.op is Op.COPY for t in step if t.color == color):
            out.append(svg.rect(x, first - 8, layout.column, last - first + 16, "#f1f3f5"))
        if number % every == 0:
            out.append(svg.text(x + layout.column / 2, first - 14, str(number), 10, "middle", svg.FAINT))
    for rank in range(schedule.world_size):
        y = layout.lane(color, rank)
        end = layout.plot_x + layout.column * max(1, len(schedule.steps))
        out.append(svg.line(layout.plot_x, y, end, y))
        if layout.pitch >= 11 or rank % 2 == 0:
            out.append(svg.text(layout.plot_x - 9, y + 3.5, str(rank), 10, "end", svg.INK))
    return out
