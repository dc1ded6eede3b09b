"""Every choice of every group composes, and everything it names can be built."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import gymnasium
import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

from somite.agents.algorithms.base import Algorithm
from somite.agents.composition import build_policy, make_task
from somite.agents.policies import Policy
from somite.envs.errors import UserError
from somite.envs.locomotion.bodies.families import FAMILIES, load_manifest
from somite.envs.task_set import TaskSet
from somite.scripts.cli.arguments import check_names, check_targets
from tests.agents import runs

CONF = Path(__file__).parents[2] / "conf"
GROUPS = ("env", "agent", "algorithm", "experiment")
CHOICES = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in GROUPS}
SENSORS = {"n_tokens", "n_actions", "n_recent", "discrete", "n_privileged", "n_sensors", "grid", "patch_size"}
"""What policies are told by environments of sensors, and, with it, by those of bodies."""
SIZES = SENSORS | {"n_joints"}
NEEDED = {
    "env=locomotion": f"env.morphology={Path(gymnasium.__file__).parent}/envs/mujoco/assets/ant.xml",
    "env=gymnasium": "env.id=CartPole-v1",
    "algorithm=clone": "algorithm.teacher=runs/nobody",
    "experiment=ant_clone": "algorithm.teacher=runs/nobody",
    "experiment=swingup_clone": "algorithm.teacher=runs/nobody",
    "env=gymnasium_image": "env.id=CarRacing-v3",
    "agent=patch_jigsaw": "env.senses.traces=[30]",
    "experiment=racing_clone": "algorithm.teacher=runs/nobody",
    "experiment=racing_control": "algorithm.teacher=runs/nobody",
}
"""What has no default."""
SENSOR_ENVS = ("cartpole_swingup", "gymnasium")
SENSOR_AGENTS = ("attention_neuron", "deep_set", "sensor_mlp", "sensor_transformer")
PATCH_ENVS = ("car_racing", "gymnasium_image")
PATCH_AGENTS = ("cnn", "patch_attention_neuron", "patch_jigsaw", "patch_transformer")


def compose(*overrides: str, name: str = "train") -> DictConfig:
    """With what has no default; a choice for sensors or patches goes with an environment of these."""
    if any(f"agent={agent}" in overrides for agent in PATCH_AGENTS):
        overrides = ("env=car_racing", *overrides)
    elif any(f"env={env}" in overrides for env in PATCH_ENVS):
        overrides = ("agent=cnn", *overrides)
    if any(f"agent={agent}" in overrides for agent in SENSOR_AGENTS):
        overrides = ("env=cartpole_swingup", *overrides)
    if any(f"env={env}" in overrides for env in SENSOR_ENVS) and "agent=mlp" not in overrides:
        overrides = ("agent=deep_set", *overrides)
    return runs.compose(*overrides, *(value for key, value in NEEDED.items() if key in overrides), name=name)


def build_all(config: DictConfig) -> tuple[TaskSet, Policy, Any]:
    check_targets(config)
    bodies = make_task(config)
    policy = build_policy(config.agent, bodies.make_vec(bodies.seen[:1], threads=1))
    return bodies, policy, hydra.utils.instantiate(config.algorithm, _convert_="all")


def test_every_group_is_tested() -> None:
    folders = {path.name for path in CONF.iterdir() if path.is_dir() and not path.name.startswith("_")}
    # Parts that several environments have; suites are tested with what reads them.
    # So are the places where a population is evaluated.
    assert folders == {*GROUPS, "env_parts", "suite", "compute"}
    assert all(CHOICES.values()) and len(GROUPS) + len(("suite", "compute")) <= 6


@pytest.mark.parametrize(
    ("group", "choice"), [(group, choice) for group in GROUPS[:3] for choice in CHOICES[group]]
)
def test_every_choice_composes_and_builds(group: str, choice: str) -> None:
    bodies, policy, algorithm = build_all(compose(f"{group}={choice}"))
    assert bodies.seen and isinstance(policy, Policy) and isinstance(algorithm, Algorithm)


@pytest.mark.parametrize("env", sorted({*CHOICES["env"]} - {*SENSOR_ENVS, *PATCH_ENVS}))
def test_every_body_of_every_split_of_every_env_can_be_simulated(env: str) -> None:
    if env == "locomotion":  # what a user brings has no named splits
        bodies = hydra.utils.instantiate(compose("env=locomotion").env, _convert_="all")
        assert bodies.seen == ("ant",) and not bodies.unseen
    elif env == "families":  # every family that has a file is among the settings
        names = sorted({*FAMILIES} & {*CHOICES["env"]})
        config = compose("env=families", f"env.families={names}", "env.split=all")
        assert sorted(config.env.settings) == names
        bodies = make_task(config)
        assert [own.source.name for own in bodies.sets] == names
        assert all(own.task == make_task(compose(f"env={own.source.name}")).task for own in bodies.sets)
    else:
        splits = [name for name, families in load_manifest()["splits"].items() if env in families]
        for split in [*splits, "all"]:
            config = compose(f"env={env}", f"env.split={split}").env
            bodies = hydra.utils.instantiate(config, _convert_="all")
            assert bodies.source.name == env
            assert all(FAMILIES[env].recipe(name) for name in bodies.choose("all"))
        assert sorted(bodies.seen) == sorted(FAMILIES[env].members)
    vector = bodies.make_vec(bodies.choose("all")[:40], threads=1)  # not every drawn body
    observation, _ = vector.reset(seed=0)
    assert vector.observation_space.contains(observation)
    vector.close()


def test_the_ant_alone_is_gymnasiums() -> None:
    bodies, _, _ = build_all(compose("env=ant"))
    assert (bodies.seen, bodies.unseen) == (("ant",), ())


@pytest.mark.parametrize("experiment", CHOICES["experiment"])
def test_every_experiment_composes_builds_and_adds_no_key(experiment: str) -> None:
    check_names([f"experiment={experiment}"], "train")
    bodies, _, algorithm = build_all(compose(f"experiment={experiment}"))
    assert bodies.unseen or bodies.kind != "limbs", "an experiment with bodies measures unseen ones"
    assert algorithm.num_envs >= len(bodies.seen)


def nodes(config: DictConfig, prefix: str = "") -> list[str]:
    """Dotted names of the nodes that name something to build."""
    found = [prefix] if "_target_" in config else []
    for key in config:
        if isinstance(config[key], DictConfig):
            found += nodes(config[key], f"{prefix}.{key}" if prefix else str(key))
    return found


@pytest.mark.parametrize(
    ("group", "choice"), [(group, choice) for group in GROUPS[:3] for choice in CHOICES[group]]
)
def test_keys_are_the_constructors_arguments(group: str, choice: str) -> None:
    """All of them: so every default can be seen, and none is kept in two places unseen."""
    config = compose(f"{group}={choice}")
    for node in nodes(OmegaConf.create({group: config[group]})):
        values = OmegaConf.select(config, node)
        arguments = set(inspect.signature(hydra.utils.get_class(values._target_)).parameters)
        told = {"spec", *SIZES} if group == "agent" else set()
        assert set(values) - {"_target_"} == arguments - told, node


@pytest.mark.parametrize("group", GROUPS[:3])
def test_an_unknown_key_is_refused_by_what_is_built(group: str) -> None:
    for choice in CHOICES[group]:
        for node in nodes(OmegaConf.create({group: compose(f"{group}={choice}")[group]})):
            config = compose(f"{group}={choice}")
            OmegaConf.update(config, f"{node}.widht", 3, force_add=True)  # as +node.widht=3 does
            with pytest.raises(UserError, match=rf"there is no key '{node}.widht'"):
                build_all(config)


@pytest.mark.parametrize("name", ["train", "evaluate", "describe", "export", "view", "references", "results"])
def test_an_unknown_key_does_not_compose(name: str) -> None:
    with pytest.raises(hydra.errors.ConfigCompositionException, match="widht"):
        compose("widht=3", name=name)


def test_the_defaults_are_what_the_design_says() -> None:
    config = compose()
    bodies, policy, algorithm = build_all(config)
    assert (bodies.source.name, bodies.split.name) == ("cheetah", "smp")
    assert type(policy).__name__ == "LimbTransformer"
    assert config.device == "auto" and config.threads == "auto" and config.seed == 0
    assert compose("algorithm.total_steps=5e6").algorithm.total_steps == 5e6
    assert algorithm.num_envs % len(bodies.seen) == 0, "as many rows of each body"


def test_a_target_reached_through_a_module_of_ours_is_refused() -> None:
    config = compose("env._target_=somite.envs.locomotion.pictures.rendering.subprocess.run")
    with pytest.raises(UserError, match="no configuration builds"):
        check_targets(config)
