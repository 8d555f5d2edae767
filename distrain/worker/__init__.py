"""One rank's program: `run.py` is its course, the others what it needs on the way."""
