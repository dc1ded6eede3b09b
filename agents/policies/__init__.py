"""Policies: small networks applied to every token, and ordinary networks as controls."""

from .attention_neuron import AttentionNeuron, PatchAttentionNeuron
from .base import Memory, Observation, Policy
from .limb_policy import LimbTransformer
from .ordinary import MLP, PatchCNN, SensorMLP
from .patch_policy import PatchJigsaw, PatchPolicy, PatchTransformer
from .sensor_policy import DeepSet, SensorPolicy, SensorTransformer
from .smp import SMP

__all__ = [
    "MLP",
    "SMP",
    "AttentionNeuron",
    "DeepSet",
    "LimbTransformer",
    "Memory",
    "Observation",
    "PatchAttentionNeuron",
    "PatchCNN",
    "PatchJigsaw",
    "PatchPolicy",
    "PatchTransformer",
    "Policy",
    "SensorMLP",
    "SensorPolicy",
    "SensorTransformer",
]
