"""Policies to test, with weights so large that wrong wiring cannot hide in rounding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from somite.agents.policies import MLP, SMP, LimbTransformer, Policy
from tests.observations import SPEC

MODULAR = {
    "transformer": lambda: LimbTransformer(SPEC, width=16),
    "transformer_tree": lambda: LimbTransformer(SPEC, width=16, heads=4, tree_encoding=True, critic="trunk"),
    "transformer_body": lambda: LimbTransformer(SPEC, width=16, attends_by="body"),
    "smp_both": lambda: SMP(SPEC, width=16, message=8, critic="trunk"),
    "smp_up": lambda: SMP(SPEC, width=16, message=8, messages="up", critic="pooled"),
    "smp_down": lambda: SMP(SPEC, width=16, message=8, messages="down"),
    "smp_none": lambda: SMP(SPEC, width=16, message=8, messages="none"),
}
N_TOKENS, N_JOINTS = 6, 2
POLICIES = {**MODULAR, "mlp": lambda: MLP(SPEC, N_TOKENS, N_JOINTS, width=32)}

# Outputs are of order 1 to 10. Sums over limbs, keys and joints change their order of addition, each
# with a relative error of some 1e-7, which a few layers of gains above one multiply.
CLOSE = {"rtol": 1e-3, "atol": 1e-3}
# Where things must differ, they differ by at least this much: a hundred times the tolerance.
MARGIN = 0.1


def draw_large(policy: nn.Module, deviation: float) -> None:
    """Gives every parameter random numbers, of this deviation in what a unit sums up."""
    for parameter in policy.parameters():
        fan_in = parameter.shape[-1] if parameter.dim() > 1 else 1
        nn.init.normal_(parameter, std=deviation / fan_in**0.5)


def build(name: str, seed: int = 0) -> Policy:
    """The named policy with large random weights and biases and a normaliser that does something."""
    torch.manual_seed(seed)
    policy = POLICIES[name]()
    draw_large(policy, 1.5)
    policy.normalizer.token_shift.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0, 0.0, 0.2]))
    policy.normalizer.joint_scale.copy_(torch.tensor([1.0, 1.0, 0.7, 1.4]))
    return policy


@torch.no_grad()
def run(policy: Policy, observation: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Action means (B, N, J) and values (B,)."""
    observation = policy.prepare(observation)
    memory = policy.initial_memory(*observation["mask"].shape)
    features, _ = policy.encode(observation, memory)
    return policy.act(features, observation), policy.value(features, observation)
