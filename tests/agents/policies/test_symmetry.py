"""Order carries no information, padding is without influence; the ordinary network is the control."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somite.agents.policies import SMP, LimbTransformer
from somite.envs.locomotion import LocomotionTask, RobotSet
from somite.envs.locomotion.bodies.planar import drawn_shape
from somite.envs.locomotion.bodies.planar_shape import planar_body
from somite.envs.locomotion.limb_spec import LIMB_SPEC
from tests.observations import SPEC, pad, permute_joints, permute_limbs, random_observation

from .helpers import CLOSE, MARGIN, MODULAR, N_JOINTS, N_TOKENS, POLICIES, build, draw_large, run

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=8, deadline=None)  # of 12 bodies each


@pytest.mark.parametrize("name", POLICIES)
@few
@given(seed=seeds)
def test_outputs_are_finite_and_masked_actions_are_zero(name: str, seed: int) -> None:
    observation = random_observation(seed, 12)
    action, value = run(build(name), observation)
    assert action.shape == observation["action_mask"].shape and value.shape == (12,)
    existing = observation["action_mask"] != 0
    assert torch.all(action[~existing] == 0)
    assert torch.isfinite(action).all() and torch.isfinite(value).all()


@pytest.mark.parametrize("name", POLICIES)
def test_outputs_vary_across_samples_and_limbs(name: str) -> None:
    observation = random_observation(7, batch=16)
    action, value = run(build(name), observation)
    assert action[observation["action_mask"] != 0].std() > MARGIN
    assert action[0][observation["action_mask"][0] != 0].std() > MARGIN
    assert value.std() > MARGIN


@pytest.mark.parametrize("name", MODULAR)
@few
@given(seed=seeds)
def test_relabelling_limbs_permutes_actions_and_keeps_the_value(name: str, seed: int) -> None:
    observation = random_observation(seed, 12)
    order = np.random.default_rng(seed).permutation(N_TOKENS)
    policy = build(name)
    action, value = run(policy, observation)
    moved_action, moved_value = run(policy, permute_limbs(observation, order))
    torch.testing.assert_close(moved_action, action[:, order], **CLOSE)
    torch.testing.assert_close(moved_value, value, **CLOSE)


@pytest.mark.parametrize("name", MODULAR)
@few
@given(seed=seeds)
def test_permuting_joint_slots_permutes_actions_and_keeps_the_value(name: str, seed: int) -> None:
    observation = random_observation(seed, 12, n_joints=3)
    order = np.random.default_rng(seed).permutation(3)
    policy = build(name)
    action, value = run(policy, observation)
    moved_action, moved_value = run(policy, permute_joints(observation, order))
    torch.testing.assert_close(moved_action, action[:, :, order], **CLOSE)
    torch.testing.assert_close(moved_value, value, **CLOSE)


@pytest.mark.parametrize("name", MODULAR)
@few
@given(seed=seeds, more_limbs=st.integers(0, 4), more_joints=st.integers(0, 3))
def test_more_padding_changes_nothing(name: str, seed: int, more_limbs: int, more_joints: int) -> None:
    observation = random_observation(seed, 12)
    rng = np.random.default_rng(seed)
    n, j = N_TOKENS + more_limbs, N_JOINTS + more_joints
    limb_slots = np.sort(rng.permutation(n)[:N_TOKENS])
    joint_slots = np.sort(rng.permutation(j)[:N_JOINTS])
    policy = build(name)
    action, value = run(policy, observation)
    padded_action, padded_value = run(policy, pad(observation, limb_slots, joint_slots, n, j))
    torch.testing.assert_close(padded_action[:, limb_slots][:, :, joint_slots], action, **CLOSE)
    torch.testing.assert_close(padded_value, value, **CLOSE)


@pytest.mark.parametrize("name", POLICIES)
@few
@given(seed=seeds, junk=st.sampled_from([1e3, float("inf"), float("nan")]))
def test_what_stands_at_padding_changes_nothing(name: str, seed: int, junk: float) -> None:
    observation = random_observation(seed, 12)
    absent, no_joint = observation["mask"] == 0, observation["joint_mask"] == 0
    spoiled = dict(observation)
    spoiled["tokens"] = observation["tokens"].masked_fill(absent.unsqueeze(-1), junk)
    spoiled["joints"] = observation["joints"].masked_fill(no_joint.unsqueeze(-1), junk)
    spoiled["parent"] = observation["parent"].masked_fill(absent, 3)
    policy = build(name)
    action, value = run(policy, observation)
    spoiled_action, spoiled_value = run(policy, spoiled)
    assert torch.equal(spoiled_action, action) and torch.equal(spoiled_value, value)


@pytest.mark.parametrize(("attends_by", "same"), [("body", True), ("state", False)])
def test_attention_by_the_body_does_not_see_what_limbs_do(attends_by: str, same: bool) -> None:
    observation = random_observation(0, 12)
    moved = dict(observation)
    for part, is_state in (("tokens", SPEC.token_is_state()), ("joints", SPEC.joint_is_state())):
        changed = observation[part] + torch.from_numpy(is_state).float()
        moved[part] = torch.where(observation[part] != 0, changed, 0.0)
    policy = LimbTransformer(SPEC, width=16, attends_by=attends_by)
    draw_large(policy, 1.5)
    one, other = (policy.attention(seen, {}) for seen in (observation, moved))
    assert torch.allclose(one, other) is same


def test_relabelling_limbs_changes_the_ordinary_network() -> None:
    """The control: the property above can fail, and the padded network is where it does."""
    observation = random_observation(3, batch=16)
    order = np.roll(np.arange(N_TOKENS), 1)
    policy = build("mlp")
    action, value = run(policy, observation)
    moved_action, moved_value = run(policy, permute_limbs(observation, order))
    assert (moved_action - action[:, order]).abs().mean() > MARGIN
    assert (moved_value - value).abs().mean() > MARGIN


@pytest.mark.parametrize("name", ["transformer_tree", "smp_both", "smp_up", "smp_down"])
def test_policies_that_read_the_tree_notice_another_tree(name: str) -> None:
    chain = random_observation(5, batch=1)
    chain["parent"] = torch.arange(-1, N_TOKENS - 1, dtype=torch.int32).unsqueeze(0)
    star = {**chain, "parent": torch.tensor([[-1] + [0] * (N_TOKENS - 1)], dtype=torch.int32)}
    policy = build(name)
    assert (run(policy, chain)[0] - run(policy, star)[0]).abs().max() > MARGIN


@pytest.mark.parametrize("policy", [LimbTransformer, SMP])
def test_it_does_not_matter_to_which_side_the_axis_of_a_joint_points(policy, tmp_path) -> None:
    """The same body twice, in the second with every other hinge about the opposite axis."""
    shape = drawn_shape("planar", 0)
    turned = [replace(own, hinge=own.hinge and replace(own.hinge, axis=-1)) for own in shape]
    turned = [turned[i] if i % 2 else own for i, own in enumerate(shape)]
    for file, own in (("as_built", shape), ("turned", turned)):
        spec = planar_body("planar", own)
        for segment in own[1:]:
            spec.joint(segment.name).springref = 0.2 * segment.hinge.axis  # rad
        (tmp_path / f"{file}.xml").write_text(spec.to_xml())
    task = LocomotionTask(reset_noise=0, reset_speed_noise=0)  # noise is in joints' own coordinates
    env = RobotSet(str(tmp_path), task=task).make_env(None, 2, threads=1)

    def rewards(one_way: bool) -> torch.Tensor:
        torch.manual_seed(0)
        agent = policy(LIMB_SPEC, one_way_joints=one_way)
        draw_large(agent, 0.5)
        observation, found = env.reset(0), []
        for _ in range(30):
            agent.normalizer.update(observation)
            step = env.step(run(agent, observation)[0].clamp(-1, 1))
            observation = step.observation
            found.append(step.rewards)
        return torch.stack(found)  # (30, 2)

    alike, not_alike = rewards(True), rewards(False)
    torch.testing.assert_close(alike[:, 0], alike[:, 1], rtol=0, atol=1e-3)
    assert alike[:, 0].std() > MARGIN
    assert (not_alike[:, 0] - not_alike[:, 1]).abs().max() > MARGIN
