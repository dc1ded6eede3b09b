"""The normaliser: statistics of valid tokens only, written by ``update`` alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somite.agents.policies.normalizer import TokenNormalizer
from tests.observations import SPEC, permute_limbs, random_observation

few = settings(max_examples=10, deadline=None)


def _scaled(seed: int, batch: int = 40) -> dict[str, torch.Tensor]:
    observation = random_observation(seed, batch)
    spread = torch.tensor([0.5, 3.0, 100.0, 1.0, 1.0, 7.0])
    centre = torch.tensor([0.0, 5.0, -200.0, 1.0, 1.0, 0.3])
    exists = observation["mask"].unsqueeze(-1).float()
    observation["tokens"] = (observation["tokens"] * spread + centre) * exists
    return observation


@few
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 40), max_size=3))
def test_statistics_in_chunks_equal_numpys_over_valid_tokens(seed: int, cuts: list[int]) -> None:
    observation = _scaled(seed)
    normalizer = TokenNormalizer(SPEC)
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 40], strict=True):
        normalizer.update({name: values[start:stop] for name, values in observation.items()})
    tokens = observation["tokens"].numpy()[observation["mask"].numpy() == 1].astype(np.float64)
    state = SPEC.token_is_state()
    shift = normalizer.token_shift.numpy()
    np.testing.assert_allclose(shift[state], tokens.mean(0)[state], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(1 / normalizer.token_scale.numpy()[state], tokens.std(0)[state], rtol=1e-6)
    assert torch.all(normalizer.token_shift[~torch.from_numpy(state)] == 0)
    assert torch.all(normalizer.token_scale[~torch.from_numpy(state)] == 1)
    joints = observation["joints"].numpy()[observation["joint_mask"].numpy() == 1].astype(np.float64)
    np.testing.assert_allclose(1 / normalizer.joint_scale.numpy()[2:], joints.std(0)[2:], rtol=1e-6)


@few
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 40), max_size=3))
def test_statistics_of_each_slot_equal_numpys_over_its_own_valid_rows(seed: int, cuts: list[int]) -> None:
    observation = _scaled(seed)
    observation["tokens"] = observation["tokens"] * torch.arange(1, 7)[:, None]
    for name in ("tokens", "mask"):
        observation[name][:, 3] = 0  # a slot that never exists
    normalizer = TokenNormalizer(SPEC, slots=6)
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 40], strict=True):
        normalizer.update({name: values[start:stop] for name, values in observation.items()})
    state = SPEC.token_is_state()
    for slot in (0, 1, 2, 4, 5):
        exists = observation["mask"].numpy()[:, slot] == 1
        rows = observation["tokens"].numpy()[exists, slot].astype(np.float64)
        shift, scale = normalizer.token_shift[slot].numpy(), normalizer.token_scale[slot].numpy()
        np.testing.assert_allclose(shift[state], rows.mean(0)[state], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(1 / scale[state], rows.std(0).clip(1e-2)[state], rtol=1e-6)
        assert np.all(scale[~state] == 1) and np.all(shift[~state] == 0)
    assert torch.all(normalizer.token_scale[3] == 1) and torch.all(normalizer.token_shift[3] == 0)
    shared = TokenNormalizer(SPEC)
    shared.update(observation)
    assert torch.equal(normalizer.joint_scale, shared.joint_scale)
    tokens, expected = normalizer.tokens(observation), observation["tokens"] - normalizer.token_shift
    expected = (expected * normalizer.token_scale).clamp(-10, 10) * observation["mask"].unsqueeze(-1)
    torch.testing.assert_close(tokens[..., state], expected[..., state])


def test_normalised_states_are_standard_and_padding_is_zero() -> None:
    observation = _scaled(0)
    normalizer = TokenNormalizer(SPEC)
    normalizer.update(observation)
    tokens, joints = normalizer(observation)
    exists = observation["mask"] == 1
    state = torch.from_numpy(SPEC.token_is_state())
    deviation = tokens[exists][:, state].std(0, correction=0)
    torch.testing.assert_close(deviation, torch.ones(4), rtol=1e-3, atol=0)
    assert torch.equal(tokens[exists][:, ~state], observation["tokens"][exists][:, ~state])
    assert torch.all(tokens[~exists] == 0) and torch.all(joints[observation["joint_mask"] == 0] == 0)


def test_padding_and_descriptors_have_no_influence() -> None:
    observation = _scaled(1)
    spoiled = {name: values.clone() for name, values in observation.items()}
    spoiled["tokens"][observation["mask"] == 0] = float("nan")
    spoiled["joints"][observation["joint_mask"] == 0] = 1e6
    spoiled["tokens"][:, :, SPEC.token_slice("mass")] += 5
    one, other = TokenNormalizer(SPEC), TokenNormalizer(SPEC)
    one.update(observation)
    other.update(spoiled)
    for name, buffer in one.named_buffers():
        assert torch.equal(buffer, other.get_buffer(name)), name


def test_identity_before_the_first_update() -> None:
    observation = random_observation(2)
    tokens, joints = TokenNormalizer(SPEC)(observation)
    assert torch.equal(tokens, observation["tokens"]) and torch.equal(joints, observation["joints"])


def test_constant_columns_are_floored_and_values_clipped() -> None:
    observation = random_observation(3)
    observation["tokens"][..., 0] = observation["mask"] * 0.5
    normalizer = TokenNormalizer(SPEC)
    normalizer.update(observation)
    assert normalizer.token_scale[0] == pytest.approx(100)
    observation["tokens"][..., 0] = observation["mask"] * 1e6
    tokens, _ = normalizer(observation)
    assert tokens.max() == 10


@few
@given(seed=st.integers(0, 2**32 - 1))
def test_commutes_with_permutation_and_forward_writes_nothing(seed: int) -> None:
    observation = _scaled(seed, batch=8)
    normalizer = TokenNormalizer(SPEC)
    normalizer.update(observation)
    before = {name: buffer.clone() for name, buffer in normalizer.named_buffers()}
    order = np.random.default_rng(seed).permutation(6)
    tokens, joints = normalizer(observation)
    moved_tokens, moved_joints = normalizer(permute_limbs(observation, order))
    assert torch.equal(moved_tokens, tokens[:, order]) and torch.equal(moved_joints, joints[:, order])
    for name, buffer in normalizer.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_states_that_are_not_finite_are_refused_with_their_columns() -> None:
    observation = random_observation(4)
    observation["tokens"][0, 0, 5] = float("inf")
    with pytest.raises(ValueError, match=r"token columns \[5\]"):
        TokenNormalizer(SPEC).update(observation)
