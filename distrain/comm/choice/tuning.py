"""The table of `distrain tune`: what was the fastest on the user's own machine, by size of payload.

One JSON file holds the tables of several machines. A table is found by its key: MPI library, hosts,
ranks, rails. Only rank 0 reads the file and tells the others, so a file that differs between nodes, or
that only some nodes see, cannot make ranks run different algorithms.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from distrain.errors import ConfigError
from distrain.schedule.advice import Choice, Speeds, estimate
from distrain.schedule.ir import Collective
from distrain.schedule.registry import names

VERSION = 1


def default_path() -> Path:
    """Return where the table lies unless ``comm.tune_table`` says otherwise: in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(cache) / "distrain" / "tune.json"


def shape_of(nodes: Sequence[int]) -> str:
    """Return hosts and ranks for a key: ``4 hosts x 2 ranks``, or ``2 hosts, 2+1 ranks``."""
    counts = [nodes.count(node) for node in dict.fromkeys(nodes)]
    if len(set(counts)) == 1:
        return f"{len(counts)} hosts x {counts[0]} ranks"
    return f"{len(counts)} hosts, {'+'.join(map(str, counts))} ranks"


def key_of(mpi: str, nodes: Sequence[int], rails: int) -> str:
    """Return the key of a machine: ``Open MPI 5.0.11; 4 hosts x 1 ranks; 2 rails``."""
    return f"{mpi}; {shape_of(nodes)}; {rails} rails"


@dataclass(frozen=True)
class Pick:
    """The fastest of what was measured for one size.

    Attributes:
        payload_bytes: size that was measured.
        choice: the fastest.
        seconds: its median, of the slowest rank.
        next_best: the second, and its seconds; None: nothing else ran.
    """

    payload_bytes: int
    choice: Choice
    seconds: float
    next_best: tuple[Choice, float] | None = None


@dataclass(frozen=True)
class Table:
    """What was measured on one machine.

    Attributes:
        key: see `key_of`.
        made: when, in ISO 8601.
        picks: by collective, sizes ascending.
        speeds: fitted to the measurement; for groups of another shape.
    """

    key: str
    made: str
    picks: dict[Collective, tuple[Pick, ...]]
    speeds: Speeds = field(default_factory=Speeds)

    def choose(self, collective: Collective, payload_bytes: int) -> Choice | None:
        """Return the pick of the nearest measured size, by ratio; None: the collective was not measured."""
        picks = self.picks.get(collective, ())
        if not picks:
            return None
        size = max(1, payload_bytes)
        return min(
            picks, key=lambda pick: max(size, pick.payload_bytes) / min(size, pick.payload_bytes)
        ).choice


def to_json(table: Table) -> dict[str, Any]:
    """Return a table as plain values."""
    return {
        "key": table.key,
        "made": table.made,
        "speeds": asdict(table.speeds),
        "picks": {c.value: [asdict(pick) for pick in picks] for c, picks in table.picks.items()},
    }


def from_json(raw: Any) -> Table:
    """Return a table from plain values.

    Raises:
        KeyError, TypeError, ValueError: they are not those of a table.
    """
    picks = {
        Collective(name): tuple(sorted((_pick(one) for one in found), key=lambda pick: pick.payload_bytes))
        for name, found in raw["picks"].items()
    }
    return Table(str(raw["key"]), str(raw["made"]), picks, Speeds(**raw["speeds"]))


def _pick(raw: Any) -> Pick:
    second = raw["next_best"]
    size, seconds = int(raw["payload_bytes"]), float(raw["seconds"])
    if size < 1 or seconds < 0:
        raise ValueError(f"payload_bytes={size}, seconds={seconds}")
    return Pick(
        size,
        _choice(raw["choice"]),
        seconds,
        None if second is None else (_choice(second[0]), float(second[1])),
    )


def _choice(raw: Any) -> Choice:
    choice = Choice(str(raw["algorithm"]), int(raw["colors"]), int(raw["segment_bytes"]))
    if choice.algorithm not in names() or choice.colors < 1 or not 1 <= choice.segment_bytes < 1 << 31:
        raise ValueError(f"no such algorithm: {choice}")
    return choice


def load(path: Path) -> list[Table]:
    """Return the tables of a file; none if there is no file.

    Raises:
        ConfigError: it cannot be read or is not a file of tables.
    """
    try:
        raw = json.loads(path.read_text())
        if raw["version"] != VERSION:
            raise ValueError(f"version {raw['version']} is not {VERSION}")
        return [from_json(one) for one in raw["tables"]]
    except FileNotFoundError:
        return []
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            str(path),
            f"is no table of distrain tune: {type(error).__name__}: {error}",
            "delete it, tune again",
        ) from error


def save(path: Path, table: Table) -> None:
    """Put a table into a file, in the place of the one with its key; in one step.

    Raises:
        ConfigError: the file is damaged (it may hold tables of other machines, so it is not replaced), or
            it cannot be written.
    """
    tables = [one for one in load(path) if one.key != table.key] + [table]
    text = json.dumps({"version": VERSION, "tables": [to_json(one) for one in tables]}, indent=1) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".tune-", delete=False) as out:
            out.write(text)
        os.replace(out.name, path)
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be written: {error.strerror}", "name another by --table"
        ) from error


def fit(nodes: Sequence[int], rails: int, picks: Sequence[Pick], start: Speeds | None = None) -> Speeds:
    """Return speeds under which the formulas give the measured times of the shortest and longest payload.

    The shortest gives the seconds of a step, the longest the bytes a second; both come from what was the
    fastest there, so the speeds hold for a machine as this program uses it.
    """
    speeds = start or Speeds()
    hosts, ranks = len(set(nodes)), len(nodes)
    if ranks < 2 or not picks:
        return speeds
    shortest, longest = picks[0], picks[-1]
    count = hosts if hosts > 1 else ranks
    share = 2 * (count - 1) / count
    unit = Speeds(1.0, 1e30, 1.0, 1e30)  # under which a formula gives the number of its steps
    steps = estimate(shortest.choice.algorithm, nodes, 0, 1, unit) or 2 * count
    step = max(1e-7, shortest.seconds / steps)
    waits = (estimate(longest.choice.algorithm, nodes, 0, 1, unit) or 2 * count) * step
    speed = share * longest.payload_bytes / max(longest.seconds - waits, longest.seconds / 2)
    if hosts > 1:
        return replace(speeds, step_seconds=step, bytes_per_second=speed / rails)
    return replace(speeds, local_step_seconds=step, local_bytes_per_second=speed)
