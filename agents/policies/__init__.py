"""Policies: small networks applied to every token, and ordinary networks as controls."""

from .attention_neuron import AttentionNeuron
from .base import Memory, Observation, Policy
from .deep_set import DeepSet
from .limb_transformer import LimbTransformer
from .mlp import MLP
from .patch_attention_neuron import PatchAttentionNeuron
from .patch_cnn import PatchCNN
from .patch_jigsaw import PatchJigsaw
from .patch_policy import PatchPolicy
from .patch_transformer import PatchTransformer
from .sensor_mlp import SensorMLP
from .sensor_policy import SensorPolicy
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
