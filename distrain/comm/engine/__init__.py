"""The one thread of a process that calls MPI: its queues, and who may take its place."""
