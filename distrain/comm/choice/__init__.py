"""Which algorithm runs: as set, by the table of `distrain tune`, or by formulas."""
