"""Collectives of ranks that share a node's memory: C and the Python around it."""
