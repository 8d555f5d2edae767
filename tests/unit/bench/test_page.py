"""The page of benchmarks: tables of what the lines say, and words for what failed."""

from __future__ import annotations

import re

from distrain.bench.page import (
    SUITES,
    TEMPLATE,
    Suite,
    allreduce_table,
    ddp_table,
    exchange_table,
    kept,
    load_table,
    loader_table,
    short_table,
)


def test_ours_is_compared_with_the_best_peer() -> None:
    lines = [
        {"name": "distrain", "ranks": 2, "bytes": 1024, "median_s": 0.002},
        {"name": "distrain (array)", "ranks": 2, "bytes": 1024, "median_s": 0.001},
        {"name": "mpi", "ranks": 2, "bytes": 1024, "median_s": 0.004},
        {"name": "gloo", "ranks": 2, "bytes": 1024, "median_s": 0.010},
        {"name": "distrain", "ranks": 4, "bytes": 1024, "median_s": 0.003},
        {"name": "mpi", "ranks": 4, "bytes": 1024, "error": "wrong sum", "correct": False},
    ]
    assert allreduce_table(lines).splitlines() == [
        "| ranks | bytes | distrain | distrain (array) | mpi | gloo | ours / best peer |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| 2 | 1.0 KiB | 2 | 1 | 4 | 10 | 0.50 |",
        "| 4 | 1.0 KiB | 3 | - | - | - |  |",
    ]


def test_short_payloads_are_shown_by_hosts_and_ranks() -> None:
    lines = [
        {"name": "distrain", "machines": 4, "ranks": 8, "bytes": 8, "median_s": 0.0002},
        {"name": "mpi", "machines": 4, "ranks": 8, "bytes": 8, "median_s": 0.0004},
    ]
    assert short_table(lines).splitlines()[2:] == ["| 4 | 8 | 8 B | 0.2 | 0.4 | 0.50 |"]


def test_the_exchange_has_a_table_alone_and_one_behind_training() -> None:
    lines = [
        {"name": "distrain", "nodes": 4, "rails": 1, "median_s": 1.25, "limit_s": 1.0, "of_limit": 0.8},
        {"name": "gloo", "nodes": 4, "error": "not here"},
        {
            "name": "distrain behind training",
            "nodes": 4,
            "compute_s": 0.3,
            "gradients_s": 0.2,
            "slowdown_median": 0.014,
            "slowdown_mean": -0.001,
            "hidden": 0.96,
        },
    ]
    assert exchange_table(lines).splitlines() == [
        "| hosts | rails | who | seconds | limit | of the limit |",
        "| --- | --- | --- | --- | --- | --- |",
        "| 4 | 1 | distrain | 1.250 | 1.000 | 0.80 |",
        "",
        "| hosts | compute + gradients of a step, ms | step, median | step, mean | hidden |",
        "| --- | --- | --- | --- | --- |",
        "| 4 | 300 + 200 | +1.4% | -0.1% | 96.0% |",
    ]
    assert "hidden" not in exchange_table(lines[:1])


def test_of_speeds_the_highest_peer_counts() -> None:
    lines = [
        {"name": "native", "set": "orig", "threads": 1, "images_per_cpu_s": 4000.0},
        {"name": "native (no index)", "set": "orig", "threads": 1, "images_per_cpu_s": 3900.0},
        {"name": "turbojpeg", "set": "orig", "threads": 1, "images_per_cpu_s": 1000.0},
        {"name": "dali", "set": "orig", "threads": 1, "images_per_cpu_s": 500.0},
    ]
    assert loader_table(lines).splitlines()[-1] == "| orig | 1 | 4,000 | 3,900 | 1,000 | 500 | 4.00 |"


def test_a_step_is_shown_with_what_it_is_compared_with() -> None:
    line = {"name": "gloo", "ranks": 4, "bytes": 1 << 20, "compute_s": 0.1, "communication_s": 0.2}
    table = ddp_table([{**line, "step_s": 0.25, "over_longer": 1.25}, {"name": "horovod", "error": "absent"}])
    assert table.splitlines()[2:] == ["| 4 | 1.0 MiB | gloo | 100.0 | 200.0 | 250.0 | 1.250 |"]


def test_load_is_shown_with_and_without_checksums() -> None:
    rates = {"distrain": 4.0, "distrain, no checksums": 6.0, "memcpy": 5.0}
    lines = [
        {"name": name, "ranks": 2, "threads": 1, "gbytes_per_s": rate, "of_memcpy": rate / 5.0}
        for name, rate in rates.items()
    ]
    assert load_table(lines).splitlines()[2:] == ["| 2 | 1 | 4.00 | 6.00 | 5.00 | 0.80 | 1.20 |"]


def test_a_suite_that_fails_says_so() -> None:
    text = Suite("broken", ("allreduce --ranks 2 --bytes 1KiB --against nobody",), allreduce_table).run()
    assert "ended with code 2: distrain: --against: 'nobody' is no peer" in text


def test_every_suite_has_its_place_on_the_page() -> None:
    places = set(re.findall(r"\{(\w+)\}", TEMPLATE.read_text()))
    assert places == {"machine", *(suite.name for suite in SUITES)}


def test_a_suite_that_is_not_asked_for_keeps_its_table_and_tells_its_age() -> None:
    page = "Machine: a slow one.\n\n<!-- ddp -->\n| a |\n<!-- end -->\n\n<!-- load -->\n| b |\n<!-- end -->\n"
    older = kept("ddp", page)
    assert older == "Of an earlier run. Machine: a slow one.\n\n| a |"
    newer = page.replace("a slow one", "another").replace("| a |", older)
    assert kept("ddp", newer) == older
    assert kept("loader", page) == "Not run yet."
