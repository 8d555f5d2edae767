"""Open MPI's allreduce by an algorithm of one's choice, beside its own choice in the same job.

Open MPI reads the variables of its component `tuned` when a communicator is made. They are set through
the tools interface of the MPI standard (MPI_T), which mpi4py does not wrap, so the C functions are called.
"""

from __future__ import annotations

import ctypes

from mpi4py import MPI

# Its numbers for `coll_tuned_allreduce_algorithm`: 0 lets it choose, 4 is a ring, 5 a ring in segments.
AUTOMATIC, RING = 0, 4


def communicator_with(algorithm: int) -> MPI.Intracomm:
    """Return a copy of COMM_WORLD whose allreduce runs this algorithm (collective).

    Raises:
        RuntimeError: this MPI is not Open MPI, or has no such variable; the text says so.
    """
    if "Open MPI" not in MPI.Get_library_version():
        raise RuntimeError("not Open MPI")
    library = ctypes.CDLL(MPI.__file__)  # finds what mpi4py's module is linked with
    # With the level that MPI has: Open MPI lets this call lower what MPI_Query_thread says from then on.
    level = ctypes.c_int(MPI.Query_thread())
    _check(library.MPI_T_init_thread(level, ctypes.byref(ctypes.c_int())), "MPI_T_init_thread")
    rules, chosen = _Variable(library, "use_dynamic_rules"), _Variable(library, "allreduce_algorithm")
    before = rules.swap(1), chosen.swap(algorithm)
    try:
        return MPI.COMM_WORLD.Dup()
    finally:
        rules.swap(before[0])
        chosen.swap(before[1])


class _Variable:
    """One integer variable of Open MPI's component `tuned`."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self._library, self._name = library, f"coll_tuned_{name}"
        number, count = ctypes.c_int(), ctypes.c_int()
        self._handle = ctypes.c_void_p()
        found = library.MPI_T_cvar_get_index(self._name.encode(), ctypes.byref(number))
        _check(found, self._name)
        made = library.MPI_T_cvar_handle_alloc(number, None, ctypes.byref(self._handle), ctypes.byref(count))
        _check(made, self._name)

    def swap(self, value: int) -> int:
        """Set it; return what it was."""
        old, new = ctypes.c_int(), ctypes.c_int(value)
        _check(self._library.MPI_T_cvar_read(self._handle, ctypes.byref(old)), self._name)
        _check(self._library.MPI_T_cvar_write(self._handle, ctypes.byref(new)), self._name)
        return old.value


def _check(code: int, what: str) -> None:
    if code != MPI.SUCCESS:
        raise RuntimeError(f"{what} failed with MPI error code {code}")
