"""Every value of every configuration has a declaration, and what it excludes is refused when composed."""

from __future__ import annotations

import math

import hydra
import pytest
from omegaconf import OmegaConf

from somite.envs.errors import UserError
from somite.envs.numbers import FLAG, NULL, POSITIVE, SHARE, between, check_arguments, declared, one_of, whole
from somite.scripts.cli.arguments import known_targets
from somite.scripts.cli.values import KEYS, check_changes, check_values

from ..agents.runs import compose

NAMES_LOOKED_UP = {
    *"start_from run runs arms bodies output body table benchmark zero_shot warp env suite".split(),
    *"train.start_from".split(),
}
CHOICES = [
    *((f"env={env}",) for env in "cheetah ant locomotion centipede hopper humanoid swimmer".split()),
    *((f"env={env}",) for env in "quadruped walker humanoid_2d gymnasium gymnasium_image".split()),
    *(
        (f"env={env}", f"agent={agent}")
        for env, agent in (("car_racing", "cnn"), ("cartpole_swingup", "mlp"))
    ),
    *((f"agent={agent}",) for agent in "attention_neuron deep_set patch_attention_neuron smp".split()),
    *(
        (f"agent={agent}",)
        for agent in "patch_jigsaw patch_transformer sensor_mlp sensor_transformer".split()
    ),
    ("algorithm=cma_es",),
    ("algorithm=clone",),
    ("compute=ray",),
]
WRONG = ["abc", True, None, math.nan, math.inf, -math.inf, -1e30, 1e30, 10**400, "", [], {"a": 1}, "1e400"]


def built(node, where=""):
    if isinstance(node, dict):
        if "_target_" in node:
            yield where, node
        for key, value in node.items():
            yield from built(value, f"{where}.{key}" if where else key)


@pytest.mark.parametrize("choices", CHOICES, ids=" ".join)
def test_every_key_of_a_section_is_declared_and_its_defaults_are_valid(choices):
    config = OmegaConf.to_container(compose(*choices))
    for where, node in built(config):
        valids = declared(hydra.utils.get_class(node["_target_"]))
        assert set(node) - {"_target_"} <= set(valids), where
        for key, value in node.items():
            if key != "_target_" and not (isinstance(value, dict) and "_target_" in value):
                valids[key].read(f"{where}.{key}", value)


@pytest.mark.parametrize("command", KEYS)
def test_every_key_of_a_command_is_declared(command):
    with hydra.initialize_config_module("somite.conf", version_base="1.3"):
        config = OmegaConf.to_container(hydra.compose(command))
    sections = {"env", "agent", "algorithm", "compute", "hydra", "suite", "zero_shot", *NAMES_LOOKED_UP}
    for key, value in config.items():
        if key not in sections and not (isinstance(value, dict) and "_target_" in value):
            assert key in KEYS[command], key
    for key in config.get("warp", ()):
        assert f"warp.{key}" in KEYS[command]


def test_what_is_no_number_is_refused_wherever_a_number_is_wanted():
    for target in known_targets():
        if not target.startswith("somite.scripts"):
            kind = hydra.utils.get_class(target)
            for name, valid in declared(kind).items():
                if "number" in valid.wanted and name != "keyframe":  # which is a name, too
                    for value in WRONG:
                        allowed = (value is None and "null" in valid.wanted) or (
                            value == [] and name == "traces"
                        )
                        if allowed or (name.endswith("height") and value in (math.inf, -math.inf)):
                            continue
                        with pytest.raises(UserError, match=rf"^at\.{name} must be .*, got "):
                            valid.read(f"at.{name}", value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("seed=-1",), "seed must be a whole number from 0 to 4,294,967,295, got -1"),
        (("seed=1.5",), "seed must be .*, got 1.5"),
        (("algorithm.gamma=abc",), "algorithm.gamma must be a number from 0 to 1, got 'abc'"),
        (("algorithm.gamma=1.5",), "algorithm.gamma must be a number from 0 to 1, got 1.5"),
        (("algorithm.clip_range=-0.2",), "algorithm.clip_range must be a number above 0"),
        (("algorithm.batch_size=1",), "algorithm.batch_size must be a whole number of 2 or more, got 1"),
        (("algorithm.num_envs=1e12",), "algorithm.num_envs must be a whole number from 1 to 1,000,000"),
        (("algorithm.num_envs=1", "algorithm.n_steps=1"), "gives one sample for an update"),
        (("algorithm.normalize_returns=maybe",), "normalize_returns must be true or false, got 'maybe'"),
        (("threads=0",), "threads must be auto or a whole number from 1"),
        (("threads=auo",), "got 'auo'; did you mean 'auto'"),
        (("device=gpu",), "device must be auto, cpu, cuda or cuda:<number>, got 'gpu'"),
        (("agent.heads=3",), "agent.width must be a multiple of agent.heads, got 64 and 3"),
        (("env.task.direction=[]",), "env.task.direction must be a list of 2"),
        (("env.task.direction=[0,0]",), "env.task.direction is .0, 0."),
        (("env.task.height=[1,0]",), "env.task.height must be .low, high. with low < high"),
        (("env.variation.mass=[-1,2]",), "env.variation.mass must be .low, high."),
        (("env.variation.extrapolation.mass=[0,2]",), "env.variation.extrapolation.mass must be"),
        (("env.task=5",), "env.task must be keys and values of its own, got 5"),
        (("warp=3",), "warp must be keys and values of its own, got 3"),
        (("zero_shot.rows=0",), "zero_shot.rows must be a whole number from 1"),
        (
            ("zero_shot.conditions.limbs.other_masses.variation.mass=3",),
            "zero_shot.conditions.limbs.*mass must",
        ),
        (("algorithm=clone",), "whom to clone"),
        (
            ("algorithm=cma_es", "algorithm.population=1"),
            "algorithm.population must be a whole number from 4",
        ),
    ],
)
def test_a_run_that_cannot_be_is_refused_when_composed(arguments, message):
    with pytest.raises(UserError, match=message) as refusal:
        check_values(compose(*arguments), "train", "nowhere")
    assert "\n" not in str(refusal.value)


def test_counts_may_be_written_with_an_exponent_and_are_used_as_whole_numbers():
    config = compose("seed=1e3", "algorithm.total_steps='5e6'")
    check_values(config, "train", "nowhere")
    assert config.seed == 1000 and isinstance(config.seed, int)
    assert hydra.utils.instantiate(config.algorithm).total_steps == 5_000_000


def test_changes_for_an_evaluation_are_compared_with_what_they_change():
    check_changes({"senses": {"missing": None, "shuffle": 100}, "variation": None}, "env")
    for changes, message in (
        ({"senses": {"missing": 1.0}}, "env.senses.missing must be"),
        ({"variation": {"extrapolation": {"mass": "x"}}}, "env.variation.extrapolation.mass must be"),
        ({"world": 3}, "env.world must be keys"),
        ({"starts": "fixd"}, "env.starts must be .*did you mean 'fixed'"),
    ):
        with pytest.raises(UserError, match=message):
            check_changes(changes, "env")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("episodes", 0, "episodes must be a whole number from 1"),
        ("episodes", "many", "episodes must be a whole number"),
        ("unfit", "ignore", "unfit must be one of fail, skip"),
        ("bodies", 7, "bodies must be a name or a list of names or null, got 7"),
        ("workers", 0, "workers must be auto or a whole number"),
    ],
)
def test_numbers_of_an_evaluation_are_checked_before_anything_runs(key, value, message):
    with pytest.raises(UserError, match=message):
        KEYS["evaluate"][key].read(key, value)


def test_declarations_say_what_they_take():
    assert (whole(1, 9) | NULL).wanted == "a whole number from 1 to 9 or null"
    assert between(SHARE).convert([0, 1]) == (0, 1)
    for valid, value in (
        (FLAG, 1),
        (POSITIVE, 0),
        (between(SHARE), [1, 0]),
        (one_of("a"), "b"),
        (SHARE, True),
    ):
        with pytest.raises(UserError):
            valid.read("key", value)
    with pytest.raises(UserError, match="algorithm.gamma must be"):
        check_arguments(hydra.utils.get_class("somite.agents.algorithms.PPO"), {"gamma": 2}, "algorithm.")
