"""CRC-32 of images, as zlib computes it, at the speed of memory."""
