"""Callbacks take turns; who waits lets others run."""

from __future__ import annotations

import os
import threading

import pytest

from distrain.comm import turns


def test_one_at_a_time() -> None:
    inside = threading.Event()

    def other() -> None:
        with turns.taken():
            inside.set()

    with turns.taken():
        with turns.taken():
            thread = threading.Thread(target=other)
            thread.start()
        assert not inside.wait(0.1)
        assert turns.has_it()
    thread.join(30)
    assert inside.is_set() and not turns.has_it()


def test_who_waits_lets_another_run_and_goes_on_behind_it() -> None:
    inside, over = threading.Event(), threading.Event()

    def other() -> None:
        with turns.taken():
            inside.set()
            over.wait(30)

    with turns.taken():
        thread = threading.Thread(target=other)
        thread.start()
        with turns.given_up():
            assert inside.wait(30) and not turns.has_it()
            over.set()
        assert turns.has_it()
    thread.join(30)


def test_who_waits_by_other_means_does_not_hold_up_others_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_PATIENCE_SECONDS", 0.05)
    done = threading.Event()

    def other() -> None:
        with turns.taken():
            done.set()

    with turns.taken():
        threading.Thread(target=other).start()
        assert done.wait(30)
    with turns.taken():
        assert turns.has_it()


def test_a_forked_process_begins_anew() -> None:
    with turns.taken():
        child = os.fork()
        if child == 0:
            with turns.taken():
                os._exit(3 if turns.has_it() else 4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
