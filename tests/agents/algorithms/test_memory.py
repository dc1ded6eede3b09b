"""Where candidates lie in memory has no influence, though matrix products depend on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from somite.agents.composition import sizes_for
from somite.agents.policies import SensorMLP
from somite.agents.rollout.stacked import get_parameters, split_parameters
from somite.envs.sensors import CartPoleSwingUp


def at(values: np.ndarray, offset: int) -> np.ndarray:
    """A copy that begins so many bytes behind a multiple of 64."""
    memory = np.zeros(values.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    copy = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[:] = values
    return copy


@pytest.mark.parametrize("offset", [4, 8, 20, 60])
def test_candidates_that_begin_anywhere_are_split_into_the_same_memory(offset: int) -> None:
    env = CartPoleSwingUp().make_vec(num_envs=1)
    policy = SensorMLP(env.spec_of_tokens, **sizes_for(SensorMLP, env), width=8, layers=1)
    values = np.random.default_rng(0).standard_normal((5, len(get_parameters(policy)))).astype(np.float32)
    expected = split_parameters(policy, at(values, 0))
    for name, part in split_parameters(policy, at(values, offset)).items():
        assert torch.equal(part, expected[name])
        assert part.data_ptr() % 16 == expected[name].data_ptr() % 16, name


def test_without_that_products_can_differ() -> None:
    """The control: the reason why it is looked after, on processors where it shows."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 9, generator=generator)
    values = torch.randn(97, 9, generator=generator).numpy()
    found = [torch.from_numpy(at(values, offset)) @ weight.T for offset in range(0, 64, 4)]
    if all(torch.equal(found[0], other) for other in found):
        pytest.skip("this processor's matrix products do not depend on where memory begins")
    aligned = found[::4]
    assert all(torch.equal(aligned[0], other) for other in aligned)
