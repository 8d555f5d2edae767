"""Training: models, recipe, the loop, exact evaluation, checkpoints, metrics."""
