"""The collectives of the torch backend, by kind; `process_group.py` puts them together."""
