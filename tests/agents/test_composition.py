"""Which policies fit which environments, and what is said where they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from somite.agents import policies
from somite.agents.agent import Agent
from somite.agents.composition import build_policy, check_fit, policy_class
from somite.agents.training.loop import Run
from somite.envs.errors import UserError
from somite.envs.gym import TokenVectorEnv
from somite.envs.locomotion import BodySet
from somite.envs.sensors import CartPoleSwingUp, Senses

from .runs import compose

SENSOR_AGENTS = {
    "attention_neuron": policies.AttentionNeuron,
    "sensor_transformer": policies.SensorTransformer,
    "deep_set": policies.DeepSet,
    "sensor_mlp": policies.SensorMLP,
    "mlp": policies.SensorMLP,
}
LIMB_AGENTS = {
    "limb_transformer": policies.LimbTransformer,
    "smp": policies.SMP,
    "mlp": policies.MLP,
}


def swing_up(**senses: object) -> TokenVectorEnv:
    return CartPoleSwingUp(senses=Senses(**senses)).make_vec(num_envs=3)


def ant(aligned: bool = False):
    return BodySet("ant", "intact").make_vec(("ant",), 2, aligned=aligned, threads=1)


def build(agent: str, env: object, *overrides: str) -> policies.Policy:
    return build_policy(compose(f"agent={agent}", *overrides).agent, env)


@pytest.mark.parametrize("agent", SENSOR_AGENTS)
def test_agents_of_sensors_are_built_for_the_swing_up_and_act_in_it(agent: str) -> None:
    env = swing_up(history=3)
    policy = build(agent, env)
    assert type(policy) is SENSOR_AGENTS[agent]
    assert (policy.n_actions, policy.n_recent, policy.discrete, policy.n_privileged) == (1, 3, False, 5)
    assert not policy.aligned_slots
    check_fit(policy, env)
    observation, _ = env.reset(seed=0)
    assert Agent(policy).act(observation).shape == env.action_space.shape


@pytest.mark.parametrize("agent", LIMB_AGENTS)
def test_agents_of_limbs_are_built_for_the_ant_and_act_in_it(agent: str) -> None:
    env = ant(aligned=agent == "mlp")
    policy = build(agent, env)
    assert type(policy) is LIMB_AGENTS[agent]
    check_fit(policy, env)
    observation, _ = env.reset(seed=0)
    assert Agent(policy).act(observation).shape == env.action_space.shape


def test_the_ordinary_network_is_the_one_that_fits_with_its_own_keys() -> None:
    sensors = build("mlp", swing_up(), "agent.width=24", "agent.layers=3")
    assert (type(sensors), sensors.width, sensors.layers) == (policies.SensorMLP, 24, 3)
    limbs = build("mlp", ant(aligned=True), "agent.width=24")
    assert (type(limbs), limbs.width) == (policies.MLP, 24)
    with pytest.raises(UserError, match="MLP has no agent.sees, agent.critic; it has agent.width, .*std$"):
        build("mlp", ant(aligned=True), "+agent.sees=1", "+agent.critic=auto")


@pytest.mark.parametrize(
    ("agent", "env", "message"),
    [
        (
            "smp",
            "cartpole_swingup",
            "SMP reads limbs, but .* tokens are sensors; what fits: "
            "agent=attention_neuron or deep_set or sensor_mlp or sensor_transformer$",
        ),
        ("limb_transformer", "cartpole_swingup", "LimbTransformer reads limbs, but .* tokens are sensors"),
        (
            "attention_neuron",
            "ant",
            "AttentionNeuron reads sensors, but .* limbs; what fits: agent=limb_transformer or mlp or smp$",
        ),
        ("sensor_mlp", "ant", "SensorMLP reads sensors, but .* limbs; what fits: .* or mlp or smp$"),
        ("deep_set", "cheetah", "DeepSet reads sensors, but .* tokens are limbs"),
        ("sensor_transformer", "cheetah", "SensorTransformer reads sensors, but .* tokens are limbs"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_built(
    agent: str, env: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(*arguments: object, **options: object) -> None:
        raise AssertionError("built")

    for kind in (BodySet, CartPoleSwingUp):
        monkeypatch.setattr(kind, "make_env", built)
    monkeypatch.setattr(SENSOR_AGENTS.get(agent) or LIMB_AGENTS[agent], "__init__", built)
    with pytest.raises(UserError, match=message):
        Run(compose(f"env={env}", f"agent={agent}", "device=cpu"), tmp_path, torch.device("cpu"))
    with pytest.raises(AssertionError, match="built"):
        fitting = compose(f"env={env}", "agent=mlp", "device=cpu")
        Run(fitting, tmp_path / "fitting", torch.device("cpu"))


def test_keys_that_a_policy_does_not_have_are_named() -> None:
    with pytest.raises(UserError, match="DeepSet has no agent.widht; it has agent.width"):
        build("deep_set", swing_up(), "+agent.widht=3")
    with pytest.raises(UserError, match="n_actions of DeepSet comes from the environment; leave it out"):
        build("deep_set", swing_up(), "+agent.n_actions=3")


def test_a_class_is_named_for_both_kinds() -> None:
    node = compose("agent=mlp").agent
    assert policy_class(node, "sensors") is policies.SensorMLP and policy_class(node, "limbs") is policies.MLP


@pytest.mark.parametrize("agent", ["attention_neuron", "sensor_transformer", "deep_set"])
def test_an_invariant_policy_fits_any_number_of_sensors(agent: str) -> None:
    policy = build(agent, swing_up(history=2))
    for senses in ({"duplicates": 2}, {"noise_channels": 5}, {"missing": 0.4, "shuffle": 3}):
        env = swing_up(history=2, **senses)
        check_fit(policy, env)
        observation, _ = env.reset(seed=0)
        assert np.isfinite(Agent(policy).act(observation)).all()


def test_the_ordinary_network_fits_its_own_number_of_sensors() -> None:
    policy = build("sensor_mlp", swing_up())
    check_fit(policy, swing_up(shuffle="episode", missing=0.4))
    for senses, slots in (({"duplicates": 1}, 10), ({"noise_channels": 2}, 7)):
        message = f"SensorMLP was built for n_tokens=5, here it is {slots}; .* an invariant policy takes any"
        with pytest.raises(UserError, match=message):
            check_fit(policy, swing_up(**senses))


@pytest.mark.parametrize("agent", SENSOR_AGENTS)
def test_a_policy_keeps_the_history_it_was_trained_with(agent: str) -> None:
    policy = build(agent, swing_up(history=3))
    for history in (1, 2, 4):
        message = f"trained with 3 features of a token, .* {history}: env.senses.history, env.senses.traces"
        with pytest.raises(UserError, match=message):
            check_fit(policy, swing_up(history=history))


def test_a_policy_keeps_the_traces_it_was_trained_with() -> None:
    policy = build("sensor_transformer", swing_up(traces=[10, 50]))
    check_fit(policy, swing_up(traces=[10, 50], shuffle="episode"))
    with pytest.raises(UserError, match="trained with 11 features of a token, .* gives 6"):
        check_fit(policy, swing_up(traces=[10]))
    message = "trained with traces for 10, 50 steps: .*; here they are for 10, 60 steps"
    with pytest.raises(UserError, match=message):
        check_fit(policy, swing_up(traces=[10, 60]))


def test_a_policy_keeps_the_neighbours_it_was_trained_with() -> None:
    pytest.importorskip("Box2D")
    from somite.envs.car_racing import CarRacing

    def racing(**senses: object) -> TokenVectorEnv:
        return CarRacing(Senses(history=4, traces=[30], **senses)).make_vec(num_envs=1)

    policy = build("patch_jigsaw", racing(neighbors=40))
    check_fit(policy, racing(neighbors=40, shuffle="episode", noise_channels=3))
    with pytest.raises(
        UserError, match="trained with 24 features of a trace, .* 16: .*, env.senses.neighbors,"
    ):
        check_fit(policy, racing())
    message = "trained with matches of neighbours over 40 steps: .*; here they are over 20 steps"
    with pytest.raises(UserError, match=message):
        check_fit(policy, racing(neighbors=20))
    observation, _ = racing(neighbors=40).reset(seed=0)
    with pytest.raises(ValueError, match="the observation lacks neighbors; it has"):
        Agent(policy).act({key: value for key, value in observation.items() if key != "neighbors"})
    with pytest.raises(ValueError, match=r"neighbors has shape \(1, 256, 3\)"):
        Agent(policy).act({**observation, "neighbors": observation["neighbors"][..., :3]})


class Other:
    """What is asked of an environment, with sizes of its own."""

    kind = "sensors"

    def __init__(self, env: TokenVectorEnv, **sizes: object) -> None:
        self.spec_of_tokens, self.sizes = env.spec_of_tokens, {**env.sizes, **sizes}


def test_a_policy_keeps_its_actions_but_needs_no_critic() -> None:
    env = swing_up()
    policy = build("deep_set", env)
    with pytest.raises(UserError, match="DeepSet was built for n_actions=1, here it is 8"):
        check_fit(policy, Other(env, n_actions=8))
    with pytest.raises(UserError, match="DeepSet was built for discrete=False, here it is True"):
        check_fit(policy, Other(env, discrete=True))
    check_fit(policy, Other(env, n_privileged=0))


def test_a_policy_of_one_kind_of_tokens_does_not_act_in_another() -> None:
    with pytest.raises(UserError, match="DeepSet reads sensors, but this environment's tokens are limbs"):
        check_fit(build("deep_set", swing_up()), ant())
    with pytest.raises(UserError, match="SMP reads limbs, but this environment's tokens are sensors"):
        check_fit(build("smp", ant()), swing_up())


def test_an_agent_that_does_not_fit_into_the_memory_is_refused_before_it_is_built() -> None:
    config = compose("env=cartpole_swingup", "agent=sensor_mlp", "agent.width=65536", "agent.layers=64").agent
    with pytest.raises(UserError, match=r"SensorMLP with 27\d,.* takes about 2,0.* are free; make it"):
        build_policy(config, swing_up())
