"""Side-by-side benchmarks; every one checks its result before it times it."""
