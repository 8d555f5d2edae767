"""The import directions of docs/architecture.md: a module imports only from rooms below its own."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import distrain

PACKAGE = Path(distrain.__file__).parent

# A room may import from the rooms that stand in its row, from itself, and from no other.
MAY_IMPORT: dict[str, set[str]] = {
    "ground": set(),
    "settings": {"ground"},  # every room's settings.py: nothing heavy, so config can compose them
    "schedule": {"ground"},
    "comm": {"ground", "settings", "schedule"},
    "data": {"ground", "settings"},
    "train": {"ground", "settings", "schedule", "comm", "data"},
    "config": {"ground", "settings"},
    "launch": {"ground", "settings", "schedule", "config", "data"},
    "bench": {"ground", "settings", "schedule", "comm", "data", "train", "config", "launch"},
    "worker": {"ground", "settings", "schedule", "comm", "data", "train", "config", "launch"},
    "cli": {"ground", "settings", "schedule", "comm", "data", "train", "config", "launch", "bench", "worker"},
}
TORCH = ("comm/", "data/loader.py", "data/decode/", "train/", "bench/", "worker/", "cli/doctor.py")
MPI4PY = (
    "comm/",
    "data/store.py",
    "data/memory.py",
    "data/exchange.py",
    "bench/",
    "worker/",
    "cli/doctor.py",
)
LOGIN_NODE = ("ground", "settings", "config", "launch", "schedule")


def room_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    if len(relative.parts) > 1:
        return "settings" if relative.name == "settings.py" else relative.parts[0]
    return {"__main__.py": "cli", "__init__.py": "cli"}.get(relative.name, "ground")


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def target_of(name: str) -> Path | None:
    """The file of the package that an imported dotted name lives in."""
    parts = name.split(".")
    if parts[0] != "distrain":
        return None
    for length in range(len(parts), 0, -1):
        base = PACKAGE.joinpath(*parts[1:length])
        if base.with_suffix(".py").is_file() and length > 1:
            return base.with_suffix(".py")
        if (base / "__init__.py").is_file():
            return base / "__init__.py"
    return None


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    for name in imports_of(path):
        target = target_of(name)
        if target is None or target == PACKAGE / "__init__.py":
            continue
        other = room_of(target)
        allowed = {room} | MAY_IMPORT[room]
        assert other in allowed, f"{path}: room {room} imports {name} of room {other}"


# Rooms inside a room: which of the others inside it each may use.
INNER = {
    "comm/process": set(),
    "comm/supervision": {"comm/process"},
    "comm/messages": {"comm/process", "comm/supervision"},
    "comm/engine": {"comm/process", "comm/supervision", "comm/messages"},
    "comm/shared": {"comm/process", "comm/supervision", "comm/engine"},
    "comm/device": {"comm/process", "comm/messages"},
    "comm/group": {"comm/process", "comm/supervision", "comm/messages", "comm/shared", "comm/device"},
    "comm/choice": {"comm/process"},
    "comm/sync": {"comm/process", "comm/messages"},
    "data/checksum": set(),
    "data/decode": set(),
    "data/ingest": {"data/decode"},
    "data/nodes": {"data/checksum"},
}


def inner_room_of(path: Path) -> str | None:
    name = "/".join(path.relative_to(PACKAGE).parts[:2])
    return name if name in INNER else None


@pytest.mark.parametrize("room", INNER)
def test_inner_rooms_import_one_way(room: str) -> None:
    for path in sorted((PACKAGE / room).rglob("*.py")):
        targets = (target_of(name) for name in imports_of(path))
        others = {inner_room_of(target) for target in targets if target is not None} - {room, None}
        assert others <= INNER[room], f"{path} imports from {others}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_torch_and_mpi4py_stay_in_their_rooms(path: Path) -> None:
    relative = str(path.relative_to(PACKAGE))
    tops = {name.split(".")[0] for name in imports_of(path)}
    if "torch" in tops:
        assert relative.startswith(TORCH), f"{relative} imports torch"
    if "mpi4py" in tops:
        assert relative.startswith(MPI4PY), f"{relative} imports mpi4py"


def run_alone(code: str, folder: Path) -> None:
    """Run a program that imports what it likes, in a process in which nobody has set up mpi4py."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MPI4PY_")}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, env=environment)


def test_login_node_rooms_load_without_torch_and_mpi(tmp_path: Path) -> None:
    modules = [
        ".".join(("distrain", *path.relative_to(PACKAGE).with_suffix("").parts))
        for path in MODULES
        if room_of(path) in LOGIN_NODE and path.name != "__init__.py"
    ]
    code = (
        f"import sys, importlib\nfor m in {modules!r}: importlib.import_module(m)\n"
        "assert 'torch' not in sys.modules and 'mpi4py' not in sys.modules"
    )
    run_alone(code, tmp_path)


def test_the_package_and_its_settings_need_neither_torch_nor_mpi(tmp_path: Path) -> None:
    code = (
        "import sys, distrain\ndistrain.CommSettings(colors=2)\n"
        "assert 'torch' not in sys.modules and 'mpi4py' not in sys.modules\n"
        "assert all(hasattr(distrain, name) for name in distrain.__all__)"
    )
    run_alone(code, tmp_path)


def test_comm_takes_mpi_from_the_module_that_says_how_it_starts() -> None:
    """Whatever of `comm` a process imports first: MPI starts in `process/mpi.py`."""
    found = [
        str(path.relative_to(PACKAGE))
        for path in sorted((PACKAGE / "comm").rglob("*.py"))
        if any(name.split(".")[0] == "mpi4py" for name in imports_of(path))
    ]
    assert found == ["comm/process/mpi.py"]


ENTRIES = (
    "distrain.comm.api",
    "distrain.comm.device.by_pointers",
    "distrain.comm.engine.engine",
    "distrain.comm.messages.plain",
    "distrain.comm.process.rendezvous",
    "distrain.comm.shared.channel",
    "distrain.comm.sync.synchroniser",
    "distrain.comm.wire",
    "distrain.worker.run",
)


@pytest.mark.parametrize("entry", ENTRIES)
def test_mpi_starts_as_the_wire_wants_it(entry: str, tmp_path: Path) -> None:
    """The import of `mpi4py.MPI` starts MPI; `process/mpi.py`, which says how, comes before all others."""
    code = (
        f"import importlib, mpi4py\nmpi4py.rc.initialize = False\nimportlib.import_module({entry!r})\n"
        "assert mpi4py.rc.thread_level == 'serialized', mpi4py.rc.thread_level"
    )
    run_alone(code, tmp_path)


def test_sets_that_were_there_before_mpi_are_not_its_own(tmp_path: Path) -> None:
    """Whatever of `comm` is imported first."""
    code = (
        "import select, mpi4py\nmpi4py.rc.initialize = False\nothers = select.epoll()\n"
        "import distrain.comm.messages.plain\nfrom distrain.comm.process.event_sets import mpi_event_sets\n"
        "assert others.fileno() not in mpi_event_sets()"
    )
    run_alone(code, tmp_path)


def test_what_takes_seconds_to_import_waits_until_it_is_used(tmp_path: Path) -> None:
    """`torch._dynamo` costs every rank as much as torch itself; DDP and optimizers import it when made."""
    code = (
        "import sys, mpi4py\nmpi4py.rc.initialize = False\nimport distrain.worker.run, distrain.comm.api\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    run_alone(code, tmp_path)


def test_no_module_circles() -> None:
    """Imports form no circle, those inside functions and for type checkers included."""
    graph = {
        path: {t for n in imports_of(path) if (t := target_of(n)) is not None and t != path}
        for path in MODULES
    }
    state: dict[Path, int] = {}

    def visit(path: Path, trail: list[Path]) -> None:
        if state.get(path) == 2:
            return
        circle = " -> ".join(str(p.relative_to(PACKAGE)) for p in [*trail, path])
        assert state.get(path) != 1, f"circle: {circle}"
        state[path] = 1
        for target in graph[path]:
            visit(target, [*trail, path])
        state[path] = 2

    for path in MODULES:
        visit(path, [])


def test_files_stay_small() -> None:
    for path in (*MODULES, *PACKAGE.rglob("*.c")):
        assert len(path.read_text().splitlines()) <= 400, f"{path} has over 400 lines"
