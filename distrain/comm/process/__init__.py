"""This process among the others: start of MPI, its clock, its address."""
