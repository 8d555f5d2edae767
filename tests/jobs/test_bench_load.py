"""`distrain bench load`: every contender has the right bytes, in one process and in two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.jobs.support import distrain


@pytest.mark.parametrize("ranks", ["1", "2"])
def test_lines_of_all_contenders(tmp_path: Path, ranks: str) -> None:
    job = distrain(
        "bench", "load", "--ranks", ranks, "--bytes", "8MiB", "--rounds", "1", "--json", cwd=tmp_path
    )
    assert job.code == 0, job.err
    lines = {line["name"]: line for line in map(json.loads, job.out.splitlines())}
    assert list(lines) == ["distrain", "distrain, no checksums", "memcpy", "memcpy, old pages"]
    assert all(line["correct"] and line["ranks"] == int(ranks) for line in lines.values())
    assert len({line["bytes"] for line in lines.values()}) == 1
    assert lines["memcpy"]["of_memcpy"] == 1 and lines["distrain"]["gbytes_per_s"] > 0


def test_too_small_a_pack_is_refused(tmp_path: Path) -> None:
    job = distrain("bench", "load", "--bytes", "1MB", cwd=tmp_path)
    assert job.code == 2 and "--bytes: '1MB' is less than 8 MiB" in job.err
