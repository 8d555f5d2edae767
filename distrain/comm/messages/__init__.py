"""Collectives by messages of MPI: what a rank sends when, and the loops that do it, in C and in Python."""
