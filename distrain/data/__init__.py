"""The data: packed once, held in node-shared memory, read in an exact order, decoded into batches."""
