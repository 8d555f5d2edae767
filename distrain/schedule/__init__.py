"""Collective algorithms as data: generators, laws, costs and pictures. No MPI, no torch."""
