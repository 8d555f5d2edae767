"""The YAML file of a run: schema, loading, overrides. No torch, no mpi4py."""

from distrain.config.load import dump, load
from distrain.config.schema import RunConfig

__all__ = ["RunConfig", "dump", "load"]
