"""The one thread of a process that calls MPI: its queues, who may take its place, and what is late."""
