"""A training run from start to end: what is logged, validated, saved, and how it is resumed."""
