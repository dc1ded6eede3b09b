"""The policy as a learner sees it: probabilities over existing actuators alone, symmetries, saving, bf16."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal

from somite.agents import load_policy
from somite.agents.algorithms.network import Network, distribution
from somite.agents.policies import MLP, SMP, LimbTransformer
from somite.agents.rollout.buffer import Batch
from somite.agents.storage.policy import save_policy
from somite.envs.locomotion import LIMB_SPEC, BodySet, LocomotionTask
from tests.agents.policies.helpers import CLOSE, MARGIN, MODULAR, N_JOINTS, N_TOKENS, POLICIES, build, run
from tests.observations import Observation, pad, permute_limbs, random_observation

from .worlds import Echo, learn, make_learner, only_collect

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=15, deadline=None)


def large(name: str) -> torch.nn.Module:
    """The named policy with large random weights, and an exploration scale that is not 1."""
    policy = build(name)
    with torch.no_grad():
        policy.log_std.fill_(-0.4)
    return policy


def some_actions(observation: Observation, seed: int = 0) -> Tensor:
    """(B, N, J), also where no actuator is."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(observation["action_mask"].shape, generator=generator)


def judge(
    policy: torch.nn.Module, observation: Observation, actions: Tensor, precision: str = "float32"
) -> dict[str, Tensor]:
    """What the learner asks about actions (B, N, J)."""
    (mean, value), _ = Network(policy, precision).learn(Batch(observation, {}))
    explored = distribution(mean, False, observation["action_mask"], policy.log_std)
    log_prob = explored.log_prob(actions.flatten(1))
    return {"value": value, "log_prob": log_prob, "entropy": explored.entropy()}


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: dict = CLOSE) -> None:
    for name, values in one.items():
        torch.testing.assert_close(other[name], values, **tolerance, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("name", POLICIES)
def test_probabilities_are_torchs_summed_over_existing_actuators(name: str) -> None:
    policy, observation = large(name), random_observation(1)
    actions = some_actions(observation)
    mean, value = run(policy, observation)
    exists = observation["action_mask"] == 1
    assert 0 < exists.sum() < exists.numel()
    normal = Normal(mean, policy.log_std.detach().exp())
    found = judge(policy, observation, actions)
    for result, wanted in (("log_prob", normal.log_prob(actions)), ("entropy", normal.entropy())):
        wanted = (wanted.expand_as(actions) * exists).sum((1, 2))
        torch.testing.assert_close(found[result], wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(found["value"], value)
    assert found["log_prob"].std() > MARGIN and found["entropy"].std() > MARGIN


@pytest.mark.parametrize("name", POLICIES)
def test_drawn_actions_have_the_probability_they_were_drawn_with(name: str) -> None:
    """Also as the rollout buffer keeps them: actions flat, masks and parents in float32."""
    policy, observation = large(name), random_observation(2)
    network = Network(policy)
    with torch.no_grad():
        mean, value = network.act(observation)
        explored = distribution(mean, False, observation["action_mask"], policy.log_std)
        actions = explored.sample()
        stored = {key: values.float() for key, values in observation.items()}
        again = judge(policy, stored, actions)
    torch.testing.assert_close(again["value"], value, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again["log_prob"], explored.log_prob(actions), rtol=1e-5, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(network.value(observation), value)
    assert torch.all(actions[observation["action_mask"] == 0] == 0)
    assert torch.equal(mean, run(policy, observation)[0])
    assert not torch.allclose(actions, mean, atol=MARGIN)


def test_noise_has_the_policys_deviation() -> None:
    observation = {key: values.repeat(500, *[1] * (values.dim() - 1)) for key, values in ONE_BODY.items()}
    policy = large("smp_both")
    with torch.no_grad():
        mean, _ = Network(policy).act(observation)
        actions = distribution(mean, False, observation["action_mask"], policy.log_std).sample()
    noise = (actions - mean)[observation["action_mask"] == 1]
    assert noise.std().item() == pytest.approx(policy.log_std.exp().item(), rel=0.1)


ONE_BODY = {key: values[:1] for key, values in random_observation(2).items()}


@pytest.mark.parametrize("name", POLICIES)
@few
@given(seed=seeds)
def test_actions_of_absent_actuators_have_no_influence(name: str, seed: int) -> None:
    policy, observation = large(name), random_observation(seed)
    actions = some_actions(observation)
    junk = torch.where(observation["action_mask"] == 1, actions, 1e3 * some_actions(observation, 1))
    assert not torch.equal(junk, actions)
    for one, other in zip(
        judge(policy, observation, actions).values(), judge(policy, observation, junk).values(), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", MODULAR)
@few
@given(seed=seeds, more_limbs=st.integers(0, 4), more_joints=st.integers(0, 3))
def test_more_padding_has_no_influence(name: str, seed: int, more_limbs: int, more_joints: int) -> None:
    observation = random_observation(seed)
    rng = np.random.default_rng(seed)
    n, j = N_TOKENS + more_limbs, N_JOINTS + more_joints
    limbs, joints = np.sort(rng.permutation(n)[:N_TOKENS]), np.sort(rng.permutation(j)[:N_JOINTS])
    actions = some_actions(observation)
    padded_actions = torch.full((len(actions), n, j), 7.0)
    padded_actions[:, limbs[:, None], joints[None]] = actions
    policy = large(name)
    padded = judge(policy, pad(observation, limbs, joints, n, j), padded_actions)
    assert_close(judge(policy, observation, actions), padded)


@pytest.mark.parametrize("name", MODULAR)
@few
@given(seed=seeds)
def test_relabelled_limbs_give_permuted_actions_of_equal_probability(name: str, seed: int) -> None:
    check_relabelling(large(name), random_observation(seed), seed)


def check_relabelling(
    policy: torch.nn.Module, observation: Observation, seed: int, tolerance: dict = CLOSE
) -> None:
    order = np.random.default_rng(seed).permutation(observation["mask"].shape[1])
    moved = permute_limbs(observation, order)
    actions = some_actions(observation)
    assert_close(judge(policy, observation, actions), judge(policy, moved, actions[:, order]), tolerance)
    with torch.no_grad():
        mean, moved_mean = (Network(policy).act(each)[0] for each in (observation, moved))
    torch.testing.assert_close(moved_mean, mean[:, order], **tolerance)


def differences(policy: torch.nn.Module, observation: Observation) -> dict[str, float]:
    """Mean absolute differences that relabelling makes."""
    order = np.roll(np.arange(observation["mask"].shape[1]), 1)
    moved, actions = permute_limbs(observation, order), some_actions(observation)
    before, after = judge(policy, observation, actions), judge(policy, moved, actions[:, order])
    return {name: (before[name] - after[name]).abs().mean().item() for name in ("log_prob", "value")}


def test_the_padded_network_is_the_control_that_differs() -> None:
    """A hundred times the tolerance of the tests above."""
    found = differences(large("mlp"), random_observation(3, batch=16))
    assert found["log_prob"] > MARGIN and found["value"] > MARGIN


# The same on real bodies, with a policy that was trained a little, saved and loaded. Its outputs are
# smaller than those of the large random weights, and so are rounding errors.

TRAINED_CLOSE = {"rtol": 1e-4, "atol": 1e-4}
TRAINED_MARGIN = 0.01
BODIES = ("cheetah_2_back", "cheetah_4_front", "cheetah_7_full")
AGENTS = {
    "limb_transformer": lambda: LimbTransformer(LIMB_SPEC, width=16),
    "smp": lambda: SMP(LIMB_SPEC, width=16, message=8),
    "mlp": lambda: MLP(LIMB_SPEC, 7, 1, width=32),
}


@pytest.fixture(scope="module")
def real_observation() -> Observation:
    env = BodySet("cheetah").make_vec(BODIES, 12, threads=1)
    observation, _ = env.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(30):
        observation, *_ = env.step(rng.uniform(-1, 1, env.action_space.shape))
    return {key: torch.from_numpy(values) for key, values in observation.items()}


@pytest.fixture(scope="module", params=AGENTS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    torch.manual_seed(0)
    policy = AGENTS[request.param]()
    bodies = BodySet("cheetah", task=LocomotionTask(max_episode_steps=20))
    env = bodies.make_vec(BODIES, 6, aligned=policy.aligned_slots, threads=1)
    learn(make_learner(policy, env, n_steps=32, batch_size=64, learning_rate=1e-2), 5 * 6 * 32)
    folder = tmp_path_factory.mktemp(request.param) / "policy"
    save_policy(folder, policy, environment={}, training={})
    loaded = load_policy(folder).policy
    assert torch.equal(loaded.log_std, policy.log_std) and loaded.normalizer.token_count > 0
    return loaded


def test_a_trained_saved_and_loaded_policy_keeps_the_symmetries(
    trained: torch.nn.Module, real_observation: Observation
) -> None:
    with torch.no_grad():
        mean = Network(trained).act(real_observation)[0]
    assert mean[real_observation["action_mask"] == 1].std() > TRAINED_MARGIN, "outputs that vary"
    if trained.aligned_slots:
        found = differences(trained, real_observation)
        assert found["log_prob"] > TRAINED_MARGIN and found["value"] > TRAINED_MARGIN
        return
    check_relabelling(trained, real_observation, 0, TRAINED_CLOSE)
    padded = pad(real_observation, np.arange(2, 9), np.arange(1, 2), 10, 3)
    actions = some_actions(real_observation)
    padded_actions = torch.full((12, 10, 3), 7.0)
    padded_actions[:, 2:9, 1:2] = actions
    found = judge(trained, padded, padded_actions)
    assert_close(judge(trained, real_observation, actions), found, TRAINED_CLOSE)


# bfloat16 keeps 8 bits: actions of order 1 are rounded by some 0.4 %, and an error e of the mean moves
# the log-probability by about deviation * e / std, summed over the joints.
@pytest.mark.parametrize("name", ["transformer", "smp_both", "mlp"])
def test_bf16_is_near_float32_and_learns_in_float32(name: str) -> None:
    torch.manual_seed(0)
    policy, observation = POLICIES[name](), random_observation(4)
    actions = 0.5 * some_actions(observation)
    found = judge(policy, observation, actions, "bf16")
    assert all(result.dtype == torch.float32 for result in found.values())
    assert_close(judge(policy, observation, actions), found, {"rtol": 0.05, "atol": 0.1})
    wanted = judge(policy, observation, actions)["log_prob"]
    assert not torch.equal(found["log_prob"], wanted), "autocast did nothing"
    sum(result.sum() for result in found.values()).backward()
    assert all(parameter.dtype == parameter.grad.dtype == torch.float32 for parameter in policy.parameters())


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bf16", 0.1)])
def test_collected_actions_keep_their_probability_until_learning(precision: str, tolerance: float) -> None:
    """PPO's ratio starts at one: nothing may change between collection and the first minibatch."""
    policy = large("transformer")
    learner = make_learner(policy, Echo(6), n_steps=16, precision=precision)
    only_collect(learner)
    learn(learner, 6 * 16)
    (batch,) = learner.buffer.batches(10**6)
    with torch.no_grad():
        found = judge(policy, batch.observation, batch["actions"], precision)
    assert (found["log_prob"] - batch["log_probs"]).abs().max() < tolerance
    assert batch["log_probs"].std() > MARGIN
    torch.testing.assert_close(found["value"], batch["values"], rtol=tolerance, atol=tolerance)
