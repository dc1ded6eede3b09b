"""What a run shows in TensorBoard beside single scalars: pages of curves, hyperparameters, pictures."""

from .board import Dashboard

__all__ = ["Dashboard"]
