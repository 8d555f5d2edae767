"""Tests under ``mpirun -np N python -m pytest``: every test is run by all ranks together.

A test that fails on one rank would leave the others waiting in a collective, so the first
failure prints its rank and traceback and ends the whole job. Marks:

    @pytest.mark.ranks(2, 3)         only in worlds of these sizes
    @pytest.mark.ranks(at_least=2)   only in worlds at least so large
    @pytest.mark.seconds(120)        more time than usual before a rank dumps its stacks and dies
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator
from pathlib import Path

import mpi4py
import pytest

# In a job the engine's thread alone calls MPI, and "serialized" is enough. Tests also call it from their
# own thread, and run engines of several emulated jobs at once. Whole jobs (tests/jobs) keep the real level.
mpi4py.rc.thread_level = "multiple"
from mpi4py import MPI  # noqa: E402, F401  (its import starts MPI, at this level)

from distrain.comm.process import mpi  # noqa: E402
from distrain.world import World  # noqa: E402

SECONDS_PER_TEST = 60
# What these hold is the same on four and five ranks as on three, where there are a first rank, a last one
# and one between them: forms of calls, types, values beside gloo's, gradients of DDP, GPUs' pointers,
# callbacks, what surrounds a call. Larger worlds are for what they change: schedules, nodes, groups, routes,
# shares of data.
UP_TO_THREE_RANKS = {
    "test_beside_gloo",
    "test_callbacks",
    "test_ddp",
    "test_denormals",
    "test_fork",
    "test_forms",
    "test_memory_use",
    "test_modes",
    "test_pointers",
    "test_premul",
    "test_staging",
    "test_surroundings",
    "test_sync",
    "test_tensor_types",
}
# These make wires of their own, on which `--messages` has no bearing.
OWN_WIRES = {"test_executor", "test_narrow", "test_routes"}
STATUS = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--messages", action="store_true", help="exchange by messages, as between nodes")


@pytest.hookimpl(trylast=True)  # after the terminal reporter was made
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "ranks(*sizes, at_least=1): world sizes in which the test makes sense")
    config.addinivalue_line("markers", "seconds(limit): time limit of one test")
    if mpi.initialize().Get_rank() != 0:
        reporter = config.pluginmanager.getplugin("terminalreporter")
        config.pluginmanager.unregister(reporter)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files that have nothing to say here are not even imported, which each rank would do anew."""
    too_large = mpi.initialize().Get_size() > 3 and collection_path.stem in UP_TO_THREE_RANKS
    return too_large or (config.getoption("--messages") and collection_path.stem in OWN_WIRES) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    size, messages = mpi.initialize().Get_size(), config.getoption("--messages")
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if messages and parameters.get("group") in ("messages", "device", "pointers"):
            item.add_marker(pytest.mark.skip(reason="the same without --messages"))
        mark = item.get_closest_marker("ranks")
        if mark is None:
            continue
        smallest = mark.kwargs.get("at_least", 1)
        if (mark.args and size not in mark.args) or size < smallest:
            wanted = mark.args or f"{smallest} or more"
            item.add_marker(pytest.mark.skip(reason=f"for worlds of {wanted} ranks; this one has {size}"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    comm = mpi.initialize()
    if report.failed and comm.Get_size() > 1:
        sys.stderr.write(
            f"\nrank {comm.Get_rank()}: {item.nodeid} failed in {report.when}\n{report.longreprtext}\n"
        )
        sys.stderr.flush()
        comm.Abort(1)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[STATUS] = int(exitstatus)


def pytest_unconfigure(config: pytest.Config) -> None:
    comm = mpi.initialize()
    status = config.stash.get(STATUS, 1)
    if status and comm.Get_size() > 1:  # an internal error, or a collection that failed on this rank
        sys.stdout.flush()
        comm.Abort(status)


@pytest.fixture(autouse=True)
def time_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """A rank that is stuck shows where, and ends the job."""
    mark = request.node.get_closest_marker("seconds")
    faulthandler.dump_traceback_later(mark.args[0] if mark else SECONDS_PER_TEST, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def world(request: pytest.FixtureRequest) -> World:
    """torch.distributed over the backend under test, started once for all tests that want it."""
    import torch.distributed as dist

    import distrain
    from distrain.comm import runtime
    from distrain.comm.settings import CommSettings

    if dist.is_initialized():
        return runtime.current().world
    return distrain.init_process_group(CommSettings(node_memory=not request.config.getoption("--messages")))
