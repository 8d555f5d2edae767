"""Decoders: from the bytes of one image and a crop to pixels in a batch."""
