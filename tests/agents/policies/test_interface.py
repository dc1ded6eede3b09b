"""The contract of policies: rebuilding, memory, exploration, precision, vmap, refusals."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

from somite.agents.policies import MLP, SMP, LimbTransformer
from tests.observations import SPEC, random_observation

from .helpers import CLOSE, MARGIN, N_JOINTS, N_TOKENS, POLICIES, build, run


@pytest.mark.parametrize("name", POLICIES)
def test_architecture_rebuilds_the_policy(name: str) -> None:
    policy = build(name)
    rebuilt = type(policy)(SPEC, **json.loads(json.dumps(policy.architecture())))
    rebuilt.load_state_dict(policy.state_dict())
    observation = random_observation(0)
    for one, other in zip(run(policy, observation), run(rebuilt, observation), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", POLICIES)
def test_exploration_is_one_scalar_and_there_is_no_memory(name: str) -> None:
    policy = POLICIES[name]()
    assert policy.log_std.shape == () and policy.log_std.item() == -0.5
    assert policy.initial_memory(3, 5) == {}
    assert policy.aligned_slots is (name == "mlp")


@pytest.mark.parametrize("name", POLICIES)
def test_a_new_policy_acts_near_zero(name: str) -> None:
    torch.manual_seed(0)
    assert run(POLICIES[name](), random_observation(0, batch=32))[0].abs().max() < MARGIN


@pytest.mark.parametrize("name", POLICIES)
def test_every_parameter_learns(name: str) -> None:
    policy = build(name)
    observation = policy.prepare(random_observation(0, batch=32))
    features, _ = policy.encode(observation, {})
    noise = (policy.act(features, observation) * policy.log_std.exp()).square().sum()
    (noise + policy.value(features, observation).square().sum()).backward()
    for parameter_name, parameter in policy.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, parameter_name


class _Whole(torch.nn.Module):
    """Action and value in one call, as ``functional_call`` wants them."""

    def __init__(self, policy: torch.nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        features, _ = self.policy.encode(observation, {})
        return self.policy.act(features, observation), self.policy.value(features, observation)


@pytest.mark.parametrize("shared", [True, False], ids=["one_observation", "an_observation_each"])
@pytest.mark.parametrize("name", POLICIES)
def test_a_population_runs_under_vmap(name: str, shared: bool) -> None:
    """Three policies at once give what each gives alone, with common and with own observations."""
    policies = [build(name, seed) for seed in range(3)]
    parameters, buffers = stack_module_state([_Whole(policy) for policy in policies])
    whole = copy.deepcopy(_Whole(policies[0])).to("meta")

    observation = random_observation(0) if shared else random_observation(0, batch=12)
    observation = policies[0].prepare(observation)
    each = [observation] * 3
    if not shared:
        each = [{k: v[4 * i : 4 * i + 4] for k, v in observation.items()} for i in range(3)]
        observation = {k: v.unflatten(0, (3, 4)) for k, v in observation.items()}

    def one(parameters, buffers, observation):
        return functional_call(whole, (parameters, buffers), (observation,))

    with torch.no_grad():
        actions, values = vmap(one, (0, 0, None if shared else 0))(parameters, buffers, observation)
        for policy, own, action, value in zip(policies, each, actions, values, strict=True):
            expected_action, expected_value = _Whole(policy)(own)
            torch.testing.assert_close(action, expected_action, **CLOSE)
            torch.testing.assert_close(value, expected_value, **CLOSE)
    assert (actions[0] - actions[1]).abs().max() > MARGIN


@pytest.mark.parametrize("name", POLICIES)
def test_bfloat16_autocast_is_close_and_has_gradients(name: str) -> None:
    torch.manual_seed(0)
    policy = POLICIES[name]()
    observation = policy.prepare(random_observation(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, _ = policy.encode(observation, {})
        action, value = policy.act(features, observation), policy.value(features, observation)
    (action.float().sum() + value.float().sum()).backward()
    expected_action, expected_value = run(policy, observation)
    # bfloat16 has 8 bits: 0.4 % at each of some ten roundings of values of order 1.
    torch.testing.assert_close(action.float(), expected_action, rtol=0.1, atol=0.05)
    torch.testing.assert_close(value.float(), expected_value, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", POLICIES)
def test_double_precision_follows_the_parameters(name: str) -> None:
    action, value = run(build(name).double(), random_observation(0))
    assert action.dtype == value.dtype == torch.float64


@pytest.mark.parametrize("name", POLICIES)
def test_no_limbs_give_zero_actions(name: str) -> None:
    empty = {k: torch.full_like(v, -1 if k == "parent" else 0) for k, v in random_observation(0).items()}
    action, value = run(build(name), empty)
    assert torch.all(action == 0) and torch.isfinite(value).all()


def test_refusals_say_what_came_and_what_was_wanted() -> None:
    with pytest.raises(ValueError, match=r"\(6, 2\) limb and joint slots, got \(7, 1\)"):
        run(MLP(SPEC, N_TOKENS, N_JOINTS), random_observation(0, n_tokens=7, n_joints=1))
    with pytest.raises(ValueError, match="both, up, down, none, got 'sideways'"):
        SMP(SPEC, messages="sideways")
    with pytest.raises(ValueError, match="got 10 and 4"):
        LimbTransformer(SPEC, width=10, heads=4)
