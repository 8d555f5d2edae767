"""The doctor: verdicts for good and bad installations, made up where this machine has none."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from distrain import machine
from distrain.cli import doctor as doctor_command
from distrain.launch.doctor import examine, hardware, mpi, python
from distrain.launch.doctor.check import Check, ask_python, last_line
from distrain.launch.mpi import Mpi


def test_a_python_of_its_own() -> None:
    assert ask_python("print('noise'); print('{\"a\": 1}')") == ({"a": 1}, "")
    assert ask_python("import nothing_of_this_name") == (
        None,
        "ModuleNotFoundError: No module named 'nothing_of_this_name'",
    )
    assert ask_python("import os; os.abort()") == (None, "exit code -6")
    assert ask_python("import time; time.sleep(60)", timeout=0.5) == (None, "no answer within 0.5 s")
    assert last_line("Traceback\n  x\nError: y\n-----\n\n") == "Error: y"


def test_a_broken_torch_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "_TORCH", "raise ImportError('libcudart.so.12: cannot open')")
    check = python.torch()
    assert check.verdict == "broken" and check.found == "ImportError: libcudart.so.12: cannot open"


def test_without_the_exchange_in_memory_it_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "_EXCHANGE", 'print(\'{"built": false, "text": "no compiler"}\')')
    check = python.exchange()
    assert check.verdict == "slower" and "no compiler" in check.found


def test_without_the_checksums_in_c_it_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "_CHECKSUM", 'print(\'{"built": false, "text": "no compiler"}\')')
    check = python.checksums()
    assert check.verdict == "slower" and "no compiler" in check.found and "zlib" in check.do
    assert f"{sys.executable} -m distrain.data.checksum.build_native`" in check.do


def test_without_the_native_decoder_it_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "_NATIVE", 'print(\'{"built": false, "text": "no compiler"}\')')
    native, turbojpeg = python.decoders()
    assert native.verdict == "slower" and "no compiler" in native.found and "compiler" in native.do
    assert f"{sys.executable} -m distrain.data.decode.build_native`" in native.do
    assert turbojpeg.verdict == "ok"


@pytest.mark.parametrize(
    ("takes", "gpus", "verdict"),
    [(True, ["A"], "ok"), (False, ["A"], "slower"), (False, [], "absent"), (True, None, "ok")],
)
def test_pointers_of_gpus_matter_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch, takes: bool, gpus: list[str] | None, verdict: str
) -> None:
    answer = json.dumps({"takes": takes, "why": "SWITCH is not 1"})
    monkeypatch.setattr(mpi, "_POINTERS", f"print('{answer}')")
    check = mpi.pointers(gpus)
    assert check.verdict == verdict and "SWITCH is not 1" in check.found
    assert ("not taken" in check.found) is not takes and bool(check.do) is (verdict == "slower")


def test_the_mpi_of_this_installation_is_asked_for_pointers() -> None:
    check = mpi.pointers([])
    assert check.facts["takes"] in (True, False) and check.facts["why"] in check.found


def test_optional_libraries_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "_DALI", "import nothing_of_this_name")
    monkeypatch.setattr(python, "_HOROVOD", 'print(\'{"version": "0.28.1", "mpi": true}\')')
    dali, horovod = python.peers()
    assert dali.verdict == "absent" and "distrain[dali]" in dali.do
    assert horovod.verdict == "ok" and horovod.found == "0.28.1"


def test_library_and_its_thread_level(monkeypatch: pytest.MonkeyPatch) -> None:
    def says(level: str) -> str:
        facts = {"mpi4py": "4", "library": "X MPI 1, y", "path": "/l", "thread_level": level}
        return f"print({json.dumps(json.dumps(facts))})"

    monkeypatch.setattr(mpi, "_LIBRARY", says("serialized"))
    assert mpi.library() == Check(
        "mpi library",
        "ok",
        "X MPI 1 by mpi4py 4, threads: serialized (/l)",
        facts={"mpi4py": "4", "library": "X MPI 1, y", "path": "/l", "thread_level": "serialized"},
    )
    monkeypatch.setattr(mpi, "_LIBRARY", says("single"))
    assert mpi.library().verdict == "broken"
    monkeypatch.setattr(mpi, "_LIBRARY", "raise RuntimeError('cannot load MPI library')")
    assert mpi.library().verdict == "broken" and "pip install" in mpi.library().do


def fake(tmp_path: Path, body: str) -> Mpi:
    path = tmp_path / "mpirun"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return Mpi(str(path), "mpich", "x")


@pytest.mark.parametrize(
    ("body", "verdict", "found"),
    [
        ("echo WORLD 2 2 3", "ok", "2 ranks see each other and share memory"),
        (
            "echo WORLD 1 1 1; echo WORLD 1 1 1",
            "broken",
            "2 worlds of 1: mpirun and the library of mpi4py do not fit",
        ),
        ("echo WORLD 2 1 3", "broken", "2 ranks, but 1 on a node and a sum of 3 instead of 3"),
        ("echo boom >&2; exit 3", "broken", "exit code 3: boom"),
        ("exit 0", "broken", "exit code 0: "),
        ("exec sleep 60", "broken", "not up within 1 s"),
    ],
)
def test_world(tmp_path: Path, body: str, verdict: str, found: str) -> None:
    check = mpi.world(fake(tmp_path, body), timeout=1)
    assert (check.verdict, check.found) == (verdict, found)
    assert bool(check.do) == (verdict != "ok")


def test_no_mpirun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DISTRAIN_MPIRUN", raising=False)
    check, found = mpi.starter()
    assert found is None and check.verdict == "broken" and "distrain[mpi]" in check.do


def test_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "shared_memory", lambda: (64 << 20, 60 << 20))
    assert hardware.shared_memory().verdict == "slower"
    assert hardware.shared_memory().found == "/dev/shm: 60.0 MiB free of 64.0 MiB"
    monkeypatch.setattr(machine, "shared_memory", lambda: (64 << 30, 60 << 30))
    assert hardware.shared_memory().verdict == "ok"
    monkeypatch.setattr(machine, "shared_memory", lambda: None)
    assert "tmpfs" in hardware.shared_memory().do


def test_packed_data_is_compared_with_the_memory_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_bytes", lambda: 5 << 30)
    check = hardware.memory()
    assert check.found.endswith("; 5.0 GiB free for packed data") and check.facts["free_bytes"] == 5 << 30


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: 2)
    assert hardware.gpus(["H100", "H100"]).found == "2 x H100"
    assert hardware.gpus([]).verdict == "broken"
    assert hardware.gpus(None).verdict == "absent"  # torch itself is what is broken
    monkeypatch.setattr(machine, "gpus", lambda: 0)
    assert hardware.gpus([]).verdict == "absent"


def test_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert hardware.compiler().verdict == "absent" and "communication, decoder" in hardware.compiler().do
    (tmp_path / "mycc").write_text("#!/bin/sh\necho mycc 1.0\n")
    (tmp_path / "mycc").chmod(0o755)
    monkeypatch.setenv("CC", "mycc -m64")
    assert hardware.compiler().facts["version"] == "mycc 1.0"


@pytest.mark.parametrize(
    ("files", "limit", "cores"),
    [
        ({"memory.max": "1073741824\n", "cpu.max": "250000 100000\n"}, 1 << 30, 2),
        ({"memory.max": "max\n", "cpu.max": "max 100000\n"}, None, 64),
        ({"memory/memory.limit_in_bytes": "4096\n", "cpu/cpu.cfs_quota_us": "-1\n"}, 4096, 64),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None, 64),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, None, 2),
        ({}, None, 64),
    ],
)
def test_limits_of_a_container(
    tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch, limit: int | None, cores: int
) -> None:
    listed = "2:memory:/\n1:cpu,cpuacct:/\n" if any("/" in name for name in files) else "0::/\n"
    for name, text in {
        "proc/self/cgroup": listed,
        **{f"sys/fs/cgroup/{n}": t for n, t in files.items()},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(64), raising=False)
    assert machine.memory_limit(tmp_path) == limit
    assert machine.cores(tmp_path) == cores


def test_gpus_without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for value, count in (("", 0), ("-1", 0), ("0", 1), ("GPU-a,GPU-b", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert machine.gpus() == count
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == 0
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: H100 (UUID: x)'\necho 'GPU 1: H100'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert machine.gpus() == 2


def run(monkeypatch: pytest.MonkeyPatch, checks: list[Check], *words: str) -> tuple[int, str]:
    def made() -> Iterator[Check]:
        yield from checks

    monkeypatch.setattr(examine, "examine", made)
    app = typer.Typer()
    doctor_command.register(app)
    result = CliRunner().invoke(app, words)
    return result.exit_code, result.stdout


def test_table_json_and_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    good = [
        Check("a", "ok", "fine [x]", facts={"n": 1}),
        Check("b", "absent", "none"),
        Check("c", "slower", "s"),
    ]
    code, text = run(monkeypatch, good)
    assert code == 0 and "fine [x]" in text and "usable" in text
    code, text = run(monkeypatch, [*good, Check("d", "broken", "no", "mend [it]")])
    assert code == 1 and "not usable yet: d" in text and "mend [it]" in text
    code, text = run(monkeypatch, good, "--json")
    assert code == 0
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0] == {"check": "a", "verdict": "ok", "found": "fine [x]", "do": "", "facts": {"n": 1}}
    assert [line["check"] for line in lines] == ["a", "b", "c"]
