"""From a source of images to the shards of a pack: what `pack.py` sets to work."""
