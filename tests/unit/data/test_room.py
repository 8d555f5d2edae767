"""Free memory, read from pictures of /proc and /sys."""

from __future__ import annotations

from pathlib import Path

from distrain.data.room import shm_free_bytes
from distrain.machine import cores, free_bytes, memory_limit

GIB = 1 << 30


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: {64 << 20} kB\nMemAvailable:   {32 << 20} kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def group(folder: str, limit: object, usage: int, cache: int) -> dict[str, str]:
    return {
        f"{folder}memory.max": f"{limit}\n",
        f"{folder}memory.current": f"{usage}\n",
        f"{folder}memory.stat": f"anon 5\ninactive_file {cache}\n",
    }


def test_without_control_groups_it_is_what_the_kernel_says(tmp_path: Path) -> None:
    assert free_bytes(machine(tmp_path, "", {})) == 32 * GIB
    assert free_bytes(tmp_path / "nowhere") >= 1 << 60


def test_the_tightest_group_above_the_process_counts(tmp_path: Path) -> None:
    files = (
        group("job/", 8 * GIB, 3 * GIB, GIB)
        | group("job/step/", "max", 2 * GIB, 0)
        | group("other/", 1, 1, 0)
    )
    assert free_bytes(machine(tmp_path, "0::/job/step\n", files)) == 6 * GIB


def test_a_container_sees_its_own_group_at_the_root(tmp_path: Path) -> None:
    files = group("", 4 * GIB, GIB, 0)
    assert free_bytes(machine(tmp_path, "0::/docker/0123abc\n", files)) == 3 * GIB


def test_a_group_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    assert free_bytes(machine(tmp_path, "0::/\n", group("", GIB, 2 * GIB, 0))) == 0


def test_version_1(tmp_path: Path) -> None:
    files = {
        "memory/slurm/memory.limit_in_bytes": str(10 * GIB),
        "memory/slurm/memory.usage_in_bytes": str(4 * GIB),
        "memory/slurm/memory.stat": f"total_inactive_file {GIB}\n",
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "memory/memory.usage_in_bytes": str(20 * GIB),
        "memory/memory.stat": "total_inactive_file 0\n",
    }
    assert free_bytes(machine(tmp_path, "4:memory:/slurm\n3:cpu:/\n", files)) == 7 * GIB


def test_quotas_and_limits_of_all_groups_above_count(tmp_path: Path) -> None:
    files = {"job/cpu.max": "100000 100000\n", "job/step/cpu.max": "max 100000\n"} | group("job/", GIB, 0, 0)
    root = machine(tmp_path, "0::/job/step\n", files)
    assert cores(root) == 1
    assert memory_limit(root) == GIB


def test_this_machine_has_some() -> None:
    assert free_bytes() > 1 << 20
    assert shm_free_bytes("/nowhere/at/all") == 0
