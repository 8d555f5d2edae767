"""One start at a time writes into a run folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from distrain.errors import LaunchError
from distrain.launch.lock import LAUNCHER, RANKS, check_free, hold

HOLDER = """
import sys, time
from pathlib import Path
from distrain.launch.lock import hold
lock = hold(Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
time.sleep(60)
"""


def test_the_second_is_told_who_the_first_is_and_a_kill_unlocks(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLDER, str(tmp_path), RANKS]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        expected = f"being written by process {process.pid} on {socket.gethostname()}; wait for its end"
        with pytest.raises(LaunchError, match=expected):
            check_free(tmp_path, wait_seconds=0)
        hold(tmp_path, LAUNCHER).release()  # another kind of lock
        os.kill(process.pid, signal.SIGKILL)
        check_free(tmp_path, wait_seconds=30)
    finally:
        process.kill()
        process.communicate()


def test_released_at_the_end_and_free_without_a_file(tmp_path: Path) -> None:
    check_free(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with hold(tmp_path, RANKS), pytest.raises(LaunchError, match=f"process {os.getpid()}"):
        hold(tmp_path, RANKS)
    hold(tmp_path, RANKS).release()


def test_a_requeued_job_takes_over_from_its_lost_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server of the file system may hold the lock of a machine that is gone."""
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    first = hold(tmp_path, RANKS)
    with pytest.raises(LaunchError):
        hold(tmp_path, RANKS)  # the same start of the same job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    second = hold(tmp_path, RANKS)
    assert "earlier start of this Slurm job" in caplog.text
    assert json.loads((tmp_path / RANKS).read_text())["start"] == "1"
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    with pytest.raises(LaunchError):
        hold(tmp_path, RANKS)
    first.release()
    second.release()


def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with hold(tmp_path, RANKS):
        assert "has no locks" in caplog.text


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="cannot be written"):
        hold(tmp_path / "absent", RANKS)
