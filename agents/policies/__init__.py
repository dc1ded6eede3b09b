"""Policies: small networks applied to every limb, and the padded ordinary network as a control."""

from .base import Memory, Observation, Policy
from .limb_transformer import LimbTransformer
from .mlp import MLP
from .smp import SMP

__all__ = ["MLP", "SMP", "LimbTransformer", "Memory", "Observation", "Policy"]
