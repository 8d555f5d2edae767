"""TensorBoard is a convenience: when it cannot write, training goes on."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.event_file_writer import EventsWriter
from train_fakes import make_parts

from distrain.train.metrics import TensorBoard
from distrain.train.recorder import Recorder
from distrain.train.run import prepare


def full(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def record(step: int) -> dict[str, Any]:
    return {"kind": "train", "time": 0.0, "step": step, "loss": 1.0, "top1": 0.5, "lr": 0.1}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_ends_tensorboard_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parts = make_parts(tmp_path, train={"tensorboard": True})

    def write() -> None:
        with Recorder(parts, prepare(parts)) as recorder:
            monkeypatch.setattr(EventsWriter, "write_event", full)
            recorder.write(record(1))
            for thread in threading.enumerate():
                if type(thread).__name__ == "_EventLoggerThread":
                    thread.join()
            for step in range(2, 401):  # more numbers than the queue holds
                recorder.write(record(step))

    writing = threading.Thread(target=write, daemon=True)
    with caplog.at_level(logging.WARNING):
        writing.start()
        writing.join(60)
    assert not writing.is_alive()
    told = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert told == list(range(1, 401))
    assert caplog.text.count("TensorBoard") == 1 and "metrics.jsonl" in caplog.text


def test_closing_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = make_parts(tmp_path, train={"tensorboard": True})
    monkeypatch.setattr(TensorBoard, "close", full)
    with pytest.raises(RuntimeError, match="of the loop"), Recorder(parts, prepare(parts)):
        raise RuntimeError("of the loop")
    with Recorder(parts, prepare(parts)):
        pass
