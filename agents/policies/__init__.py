"""Policies: small networks applied to every token, and ordinary networks as controls."""

from .attention_neuron import AttentionNeuron, PatchAttentionNeuron
from .base import Memory, Observation, Policy
from .deep_set import DeepSet
from .limb_transformer import LimbTransformer
from .mlp import MLP, SensorMLP
from .patch_cnn import PatchCNN
from .patch_jigsaw import PatchJigsaw
from .patch_transformer import PatchTransformer
from .sensor_policy import PatchPolicy, SensorPolicy
from .sensor_transformer import SensorTransformer
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
