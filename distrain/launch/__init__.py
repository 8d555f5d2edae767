"""Launching: one YAML file becomes an mpirun command or a Slurm script. No torch, no mpi4py."""
