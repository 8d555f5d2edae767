"""Tensors of GPUs: through the memory of the host, or by pointers that MPI takes."""
