"""Ranks ask each other where they are, past MPI: a TCP port in each process, a thread that answers.

A rank whose main thread loops or sleeps still answers, with its Python stack. One that is stopped,
or held in C code that keeps the GIL, takes the connection and stays silent; one whose process has
ended refuses it.
"""

from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from distrain.comm.process.mpi import MPI
from distrain.comm.process.network import named_interfaces
from distrain.comm.supervision.board import board
from distrain.world import World

log = logging.getLogger(__name__)

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
AT_ONCE = 32
_TOKEN_BYTES = 16


@dataclass(frozen=True)
class Answer:
    """What a rank said, or why it said nothing.

    Attributes:
        facts: see `Board.facts`; None without an answer.
        silence: why there is none, in words.
    """

    facts: dict[str, Any] | None
    silence: str = ""


class Inquiry:
    """This process's port, and the ports of all others. Opening it is collective.

    Args:
        comm: COMM_WORLD; used here only.
        world: who runs where.
    """

    def __init__(self, comm: MPI.Intracomm, world: World) -> None:
        self.world = world
        self._server = socket.create_server(("", 0), backlog=min(4096, 2 * world.size))
        # Whoever finds the port without being of this job learns nothing.
        self._token = comm.bcast(secrets.token_bytes(_TOKEN_BYTES), root=0)
        here = (list(named_interfaces().values()), self._server.getsockname()[1])
        self._places: list[tuple[list[str], int]] = comm.allgather(here)
        self._thread = threading.Thread(target=self._serve, name="distrain-answers", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return  # closed
            with connection, suppress(OSError):  # who hangs up early has lost interest
                connection.settimeout(ANSWER_SECONDS)
                if secrets.compare_digest(_read(connection, _TOKEN_BYTES), self._token):
                    connection.sendall(json.dumps(board.facts()).encode())

    def ask(self, ranks: Sequence[int]) -> dict[int, Answer]:
        """Return what these ranks say; takes a few seconds if some are silent."""
        with ThreadPoolExecutor(AT_ONCE, "distrain-asks") as pool:
            return dict(zip(ranks, pool.map(self._ask, ranks), strict=True))

    def _ask(self, rank: int) -> Answer:
        addresses, port = self._places[rank]
        if self.world.hosts[rank] == self.world.hosts[self.world.rank]:
            addresses = ["127.0.0.1"]
        silence = "it has no network address"
        for address in addresses:
            try:
                with socket.create_connection((address, port), CONNECT_SECONDS) as connection:
                    connection.settimeout(ANSWER_SECONDS)
                    connection.sendall(self._token)
                    return Answer(json.loads(_read_all(connection)))
            except ConnectionRefusedError:
                silence = "its process has ended"
            except TimeoutError:
                silence = "it does not answer: stopped, cut off, or held in code outside Python"
            except (OSError, ValueError) as error:
                silence = f"it cannot be asked: {error}"
        return Answer(None, silence)

    def close(self) -> None:
        """Answer no more."""
        with suppress(OSError):  # not connected, says Linux, and wakes the thread that accepts
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(ANSWER_SECONDS)


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data


def _read_all(connection: socket.socket) -> bytes:
    data = b""
    while more := connection.recv(65536):
        data += more
    return data
