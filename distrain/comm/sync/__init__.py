"""Who averages the gradients of DDP, and in which buckets they travel."""
