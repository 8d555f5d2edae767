"""Looks at an installation and a machine, and says what works, what does not, and what to do."""
