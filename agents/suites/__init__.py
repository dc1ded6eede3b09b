"""Suites: conditions that an agent never trained for, run on the same episodes, and what came of them."""
