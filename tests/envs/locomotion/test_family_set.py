"""Bodies of several families in one environment, each with its own family's task."""

import dataclasses
from contextlib import closing

import numpy as np
import pytest
import torch

from somite.envs.errors import UserError
from somite.envs.locomotion import BodySet, BodyVariation, FamilySet, LocomotionEnv, LocomotionTask, get_split
from somite.envs.locomotion.bodies.families import FAMILIES, load_manifest
from somite.envs.locomotion.layout import spread_rows
from somite.envs.task_set import task_set_of

CHEETAH = LocomotionTask(max_episode_steps=5)
WALKER = LocomotionTask(
    control_cost=0.001, alive_bonus=1.0, max_episode_steps=7, reset_noise=0.05, reset_speed_noise=0.5,
    speed_noise="uniform", relative_height=(0.9, 1.6), max_tilt=0.2, max_state=5.0, target_speed=1.5,
)  # fmt: skip
ANT = LocomotionTask(progress="body", direction="random", height=(0.3, 1.0), max_episode_steps=6)
SETS = {
    "cheetah": BodySet("cheetah", "all", ["cheetah_3_front", "cheetah_7_full"], 5, CHEETAH),
    "walker": BodySet("walker", "all", ["walker_4", "walker_7"], 4, WALKER),
    "ant": BodySet("ant", "all", ["ant"], 3, ANT),
}


@pytest.mark.parametrize(
    "options",
    [{}, {"variation": BodyVariation(length=(0.9, 1.1), mass=(0.8, 1.2), variants=2)}, {"stagger": True}],
    ids=["plain", "varied", "stagger"],
)
def test_each_family_does_what_it_does_alone(options):
    varied = {name: value for name, value in options.items() if name == "variation"}
    others = {name: value for name, value in options.items() if name != "variation"}
    together = FamilySet(list(SETS), settings=SETS, **varied).make_env(num_envs=10, threads=2, **others)
    alone = [own.make_env(num_envs=2 * len(own.seen), threads=1, **varied, **others) for own in SETS.values()]
    keys = [[7, row] for row in range(10)]
    starts = np.cumsum([0, *(env.num_envs for env in alone)])
    rows = [slice(start, start + env.num_envs) for start, env in zip(starts[:-1], alone, strict=True)]

    def same(found, wanted, own):
        for name, values in wanted.items():
            padded = found[name][own]
            assert torch.equal(padded[tuple(map(slice, values.shape))], values), name
            assert name == "parent" or values.ndim == 1 or not padded[:, values.shape[1] :].any(), name

    observation = together.reset(keys)
    for own, env in zip(rows, alone, strict=True):
        same(observation, env.reset(keys[own]), own)
    ends, generator = 0, torch.Generator().manual_seed(0)
    for _ in range(25):
        actions = 2 * torch.rand(10, together.n_limbs, together.n_joints, generator=generator) - 1
        step = together.step(actions)
        for own, env in zip(rows, alone, strict=True):
            wanted = env.step(actions[own, : env.n_limbs, : env.n_joints])
            same(step.observation, wanted.observation, own)
            if wanted.final is not None:
                same(step.final, wanted.final, own)
            same(step.info, wanted.info, own)
            for name in ("rewards", "terminated", "truncated", "diverged", "whole"):
                assert torch.equal(getattr(step, name)[own], getattr(wanted, name)), name
            ends += int(wanted.ended.sum())
    assert ends > 30
    assert step.rewards.dtype == torch.float64


def test_bodies_of_one_layout_and_two_tasks_are_simulated_apart():
    env = LocomotionEnv(["walker_4"] * 2, 4, [CHEETAH, WALKER], frame_skip=[5, 4])
    assert [block.frame_skip for block in env._blocks] == [5, 4]
    with pytest.raises(UserError, match="2 tasks or frame skips for 1 bodies"):
        LocomotionEnv(["walker_4"], 1, [CHEETAH, WALKER])


def test_over_the_five_folds_each_body_is_unseen_once():
    for family in ("cheetah", "walker", "hopper", "humanoid_2d"):
        unseen = [name for k in range(5) for name in get_split(family, f"fold_{k}").unseen]
        assert sorted(unseen) == sorted(FAMILIES[family].members)
    assert set(load_manifest()["splits"]["fold_0"]) == {"cheetah", "walker", "hopper", "humanoid_2d"}
    held_out = get_split("humanoid_2d", "fold_1").unseen  # twins of each other in the plane
    assert held_out == ("humanoid_2d_7_left_arm", "humanoid_2d_7_right_arm")


def test_a_split_bodies_and_what_is_held_out_are_of_all_families():
    bodies = FamilySet(["hopper", "walker"], "fold_2", settings=FAMILIES_OF)
    assert bodies.unseen == ("hopper_5", "walker_3")
    assert set(bodies.seen) == {"hopper_3", "hopper_4"} | {f"walker_{k}" for k in (2, 4, 5, 6, 7)}
    assert bodies.choose("unseen") == bodies.unseen
    bodies = FamilySet(["hopper", "walker"], "all", ["walker_2"], ["walker_7", "hopper_3"], FAMILIES_OF)
    assert (bodies.seen, bodies.unseen) == (("hopper_3", "walker_7"), ("walker_2",))
    assert bodies.set_of("walker_2").task == WALKER and bodies.set_of("hopper_4").task == CHEETAH
    # A body on neither side of its family's split is held out, too.
    only = {"hopper": BodySet("hopper", "smp", ["hopper_4"])}
    bodies_of_one = FamilySet(["hopper"], unseen="hopper_5", settings=only)
    assert (bodies_of_one.seen, bodies_of_one.unseen) == (("hopper_4",), ("hopper_3", "hopper_5"))
    short = bodies.cut_short(6)
    assert short.max_episode_steps == 6 and short.set_of("walker_2").task.max_episode_steps == 6
    assert dataclasses.replace(short.set_of("hopper_3").task, max_episode_steps=5) == CHEETAH


FAMILIES_OF = {"hopper": BodySet("hopper", "smp", None, 4, CHEETAH), "walker": BodySet("walker", task=WALKER)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"families": ["walkr"]}, "unknown family 'walkr'; did you mean 'walker'"),
        ({"families": ["walker", "cheetah"]}, "env.settings.cheetah is missing"),
        ({"families": ["ant"], "settings": {"ant": FAMILIES_OF["walker"]}}, "env.settings.ant is .*another"),
        ({"families": ["hopper", "walker"], "split": "fold_9"}, "'hopper' has no split 'fold_9'.*fold_0"),
        ({"families": ["walker"], "bodies": ["cheetah_7_full"]}, "walker have no body 'cheetah_7_full'"),
        ({"families": ["hopper", "walker"], "bodies": ["walker_9"]}, "did you mean 'walker_"),
    ],
)
def test_what_does_not_fit_is_said(given, message):
    with pytest.raises(UserError, match=message):
        FamilySet(**{"settings": FAMILIES_OF, **given})


def test_padded_slots_of_several_families_are_refused():
    bodies = FamilySet(["hopper", "walker"], settings=FAMILIES_OF)
    with pytest.raises(UserError, match=r"one family.*agent=limb_transformer"):
        bodies.make_env(aligned=True)


def test_a_saved_configuration_makes_the_same():
    node = {"_target_": "somite.envs.locomotion.BodySet", "bodies": None, "variation": None}
    config = {
        "_target_": "somite.envs.locomotion.FamilySet",
        "families": ["hopper"],
        "split": "all",
        "settings": {
            "hopper": {**node, "family": "hopper", "task": {"alive_bonus": 2.0}, "frame_skip": None},
            "walker": {**node, "family": "walker"},
        },
    }
    used = FamilySet.used(config)
    assert list(used["settings"]) == ["hopper"]
    assert set(used["settings"]["hopper"]) == {"_target_", "family", "task", "frame_skip"}
    bodies = task_set_of(config)
    assert bodies.seen == ("hopper_3", "hopper_4", "hopper_5")
    assert bodies.set_of("hopper_3").task.alive_bonus == 2.0 and bodies.set_of("hopper_3").frame_skip is None
    with pytest.raises(UserError, match=r"settings.hopper._target_ is"):
        task_set_of({**config, "settings": {"hopper": {"_target_": "somite.envs.locomotion.World"}}})


@pytest.mark.parametrize(
    ("weights", "num_envs", "counts"),
    [
        (None, 8, [3, 3, 2]),
        ([1, 1, 2], 8, [2, 2, 4]),
        ([1, 0.01, 1], 9, [4, 1, 4]),
        ([1, 10, 100], 3, [1, 1, 1]),
        ([0.5, 0.25, 0.25], 6, [3, 2, 1]),
    ],
)
def test_rows_are_shared_by_weight_and_each_body_has_one(weights, num_envs, counts):
    bodies = ["hopper_3", "hopper_4", "hopper_5"]
    assert np.bincount(spread_rows(bodies, num_envs, weights)[1]).tolist() == counts


def test_training_may_spread_environments_over_families():
    settings = {name: BodySet(name, "all") for name in ("hopper", "walker")}
    task = FamilySet(["hopper", "walker"], settings=settings, spread_over="families")
    for names, hoppers in ((None, 12), (task.seen, 9)):  # evaluation names its bodies
        with closing(task.make_env(names, 24, threads=1)) as env:
            assert sum(task.seen[i].startswith("hopper") for i in env.body_of_row) == hoppers
