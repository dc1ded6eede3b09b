"""Choices of the groups that benchmarks add to those of training."""
