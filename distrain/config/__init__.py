"""The YAML file of a run: schema, loading, overrides. No torch, no mpi4py."""
