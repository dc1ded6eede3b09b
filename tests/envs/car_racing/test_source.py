"""Many cars in one environment: in one process or several, as patches or as states."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest

pytest.importorskip("Box2D")

from gymnasium.envs.box2d.car_racing import CarRacing as Original

from somite.envs.car_racing import CarRacing, Scenery
from somite.envs.car_racing.cars import HIGH, LOW, SLIP, Car
from somite.envs.car_racing.simulation import STATE_NAMES
from somite.envs.car_racing.source import RacingSource
from somite.envs.car_racing.task import RENDERERS
from somite.envs.errors import UserError
from somite.envs.images.patches import cut, join
from somite.envs.sensors import Senses
from somite.envs.task_set import task_set_of


def drive(env, steps: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    observation, _ = env.reset(seed=seed)
    found, rng = [observation], np.random.default_rng(seed)
    for _ in range(steps):
        actions = rng.uniform([-0.3, 0.0, -1.0], [0.3, 1.0, -0.8], (env.num_envs, 3))
        observation, rewards, *ends = env.step(actions)
        found.append({**observation, "rewards": rewards, "ends": np.stack(ends[:2])})
    return found


def test_the_tokens_are_patches_of_gymnasiums_picture() -> None:
    env = CarRacing(Senses(history=1), grey=False, indicators=True).make_vec(num_envs=1)
    observation, _ = env.reset(seed=4)
    seeds = np.random.default_rng([4, 0]).integers(2**31, size=2)
    wanted, _ = Original().reset(seed=int(seeds[0]))
    assert observation["tokens"].shape == (1, 256, 108) and observation["tokens"].dtype == np.uint8
    assert env.single_observation_space["tokens"].contains(observation["tokens"][0])
    picture = join(observation["tokens"], (16, 16), 6)[0]
    assert np.abs(picture.astype(int) - wanted).mean() < 2
    np.testing.assert_array_equal(cut(picture[None], 6), observation["tokens"])
    # A patch is what its name says: that of the second row and third column.
    which = env.source.sensor_names.index("patch_1_2")
    np.testing.assert_array_equal(observation["tokens"][0, which], picture[6:12, 12:18].ravel())


def test_grey_frames_without_the_bar_and_their_history() -> None:
    env = CarRacing(Senses(history=3), action_repeat=2).make_vec(num_envs=1)
    found = drive(env, 4)
    frames = [join(o["tokens"].reshape(1, 256, 3, 36)[:, :, 0], (16, 16), 6)[0, ..., 0] for o in found]
    assert all((frame[84:] == 0).all() and (frame[:84] > 0).any() for frame in frames)
    newest_first = found[-1]["tokens"].reshape(256, 3, 36)
    for age in range(3):
        earlier = found[-1 - age]["tokens"].reshape(256, 3, 36)[:, 0]
        np.testing.assert_array_equal(newest_first[:, age], earlier)
    first = found[0]["tokens"].reshape(256, 3, 36)
    assert (first[:, 0] == first[:, 1]).all() and (first[:, 0] == first[:, 2]).all()
    np.testing.assert_array_equal(found[2]["recent_actions"][0, -1], found[3]["recent_actions"][0, -2])


@pytest.mark.parametrize("shape", [{"duplicates": 1}, {"noise_channels": 3}, {"missing": 0.5}, {"stuck": 4}])
def test_what_is_done_to_sensors_is_done_to_patches(shape: dict) -> None:
    plain = CarRacing(Senses(history=2)).make_vec(num_envs=2)
    task = CarRacing(Senses(history=2, shuffle="episode", **shape))
    disturbed = task.make_vec(num_envs=2)
    for wanted, found in zip(drive(plain, 5), drive(disturbed, 5), strict=True):
        tokens, mask = found["tokens"], found["mask"]
        assert tokens.dtype == np.uint8 and tokens.shape[1] == Senses(**shape).n_channels(256)
        assert (tokens[mask == 0] == 0).all()
        assert mask.sum() == mask.size - round(shape.get("missing", 0) * 256) * 2
        for row in range(2):  # every token is one of the patches, or noise, or stuck
            patches = {bytes(patch) for patch in wanted["tokens"][row]}
            strange = sum(bytes(t) not in patches for t in tokens[row][mask[row] == 1])
            assert strange <= shape.get("noise_channels", 0) + shape.get("stuck", 0)
        np.testing.assert_array_equal(wanted["privileged"], found["privileged"])


def test_shuffled_patches_find_their_neighbours_and_keep_traces() -> None:
    kept = {"history": 2, "traces": [30], "neighbors": 40}
    task = CarRacing(Senses(**kept), action_repeat=4, max_episode_steps=200)
    plain = task.make_vec(num_envs=2)
    shuffled = task.changed(senses=Senses(**kept, shuffle="episode")).make_vec(num_envs=2)
    without = CarRacing(Senses(history=2), action_repeat=4, max_episode_steps=200).make_vec(num_envs=2)
    names = {name: i for i, name in enumerate(plain.source.sensor_names)}
    pairs = [(names[f"patch_{r}_{c}"], names[f"patch_{r}_{c + 1}"]) for r in range(14) for c in range(15)]
    left, right = np.array(pairs).T
    right_share = []
    for one, other, bare in zip(*(drive(env, 60) for env in (plain, shuffled, without)), strict=True):
        assert all(space.contains(one[key][0]) for key, space in plain.single_observation_space.items())
        np.testing.assert_array_equal(one["tokens"], bare["tokens"])
        order = other["sensor"]  # in (2, N): which patch stands in each slot
        traces = np.take_along_axis(one["traces"], order[..., None], 1)
        near = np.isclose(other["traces"], traces, atol=1e-4)
        named = np.take_along_axis(order, other["neighbors"].reshape(2, -1), 1).reshape(2, 256, 4)
        same = named == np.take_along_axis(one["neighbors"], order[..., None], 1)
        # At first several may fit equally well; once there was something to see, they are all the same.
        aged = 24 <= len(right_share) < 50
        assert min(near.mean(), same.mean()) >= (1.0 if aged else 0.9)
        right_share.append((one["neighbors"][:, left, 0] == right).mean())
    assert right_share[0] == 0 and right_share[40] > 0.4
    # An episode ends after 50 actions: what was found in it is forgotten.
    assert not drive(plain, 50)[50]["traces"][..., -8:].any() and right_share[51] < 0.1


def test_a_repeated_action_earns_the_rewards_of_all_its_frames() -> None:
    once, repeated = (
        Car(CarRacing(view="state").rules),
        Car(CarRacing(view="state", action_repeat=5, max_episode_steps=12).rules),
    )
    once.start(3, 0)
    repeated.start(3, 0)
    action = np.array([0.05, 0.5, 0.0])
    for frames, wanted in ((5, False), (5, False), (2, True)):
        total, ended, cut_off = repeated.step(action)
        assert total == pytest.approx(sum(once.step(action)[0] for _ in range(frames)), abs=1e-12)
        assert (ended, cut_off) == (False, wanted)


def test_patience_ends_an_episode_after_so_many_frames_without_reward() -> None:
    car = Car(CarRacing(view="state", patience=20).rules)
    car.start(0, 0)
    rewards, ended = [], False
    while not ended:
        reward, ended, cut_off = car.step(np.zeros(3))  # it stands still, on its first tiles
        rewards.append(reward)
        assert not cut_off and len(rewards) < 100
    last_rewarded = max((i for i, reward in enumerate(rewards) if reward > 0), default=-1)
    assert len(rewards) - 1 - last_rewarded == 21, "more than 20 in a row"


def acted(slips: float, track: int = 0) -> np.ndarray:
    """(200, 3), what became of the action (0.5, 0.25, 0)."""
    car, found = Car(CarRacing(view="state", slips=slips).rules), []
    car.start(track, 7)
    car.env.step = lambda action: (found.append(action), 0.0, False, False, {})[:5]
    for _ in range(200):
        car.step(np.array([0.5, 0.25, 0.0]))
    return np.array(found)


def test_slips_are_random_actions_that_last() -> None:
    found = acted(0.1)
    wrong = (found != (0.5, 0.25, 0.0)).any(1)
    assert 0.15 < wrong.mean() < 0.45
    begins = np.flatnonzero(wrong & ~np.roll(wrong, 1))[1:-1]
    assert all((found[i : i + SLIP] == found[i]).all() for i in begins)
    several = np.unique(found[wrong], axis=0)
    assert (
        len(several) >= 5
        and (several >= LOW).all()
        and (several <= HIGH).all()
        and several.std(0).min() > 0.1
    )
    np.testing.assert_array_equal(found, acted(0.1))
    assert not np.array_equal(found, acted(0.1, track=1)) and (acted(0.0) == (0.5, 0.25, 0.0)).all()


def test_gymnasiums_own_drawing_can_be_chosen() -> None:
    ours, theirs = (CarRacing(Senses(history=1), renderer=name).make_vec(num_envs=2) for name in RENDERERS)
    for found, wanted in zip(drive(ours, 3), drive(theirs, 3), strict=True):
        difference = np.abs(found["tokens"].astype(int) - wanted["tokens"])
        assert 0 < difference.mean() < 2 and found["tokens"].std() > 20
        np.testing.assert_array_equal(found["privileged"], wanted["privileged"])


def test_evaluation_has_no_patience() -> None:
    task = CarRacing(view="state", patience=20, slips=0.1, max_episode_steps=100)
    lengths = []
    for which in (task, task.for_evaluation()):
        env = which.make_vec(num_envs=1, once=True)
        env.reset(seed=0)
        steps, ended = 0, False
        while not ended:
            _, _, terminated, truncated, _ = env.step(np.array([[0.0, -1.0, -1.0]]))
            steps, ended = steps + 1, terminated[0] or truncated[0]
        lengths.append(steps)
    assert lengths[0] < 60 and lengths[1] == 100 and task.patience == 20
    assert task.for_evaluation().slips == 0 and task.slips == 0.1


def test_a_state_for_teachers_needs_no_pictures() -> None:
    task = CarRacing(view="state", action_repeat=4)
    env = task.make_vec(num_envs=2)
    observation, _ = env.reset(seed=1)
    assert task.kind == env.kind == "sensors" and env.source.sensor_names == STATE_NAMES
    assert observation["tokens"].shape == (2, len(STATE_NAMES), 1) and env.source.pictures.size == 0
    np.testing.assert_array_equal(observation["tokens"][..., 0], observation["privileged"])
    assert env.source.max_episode_steps == 250


def test_a_teacher_of_states_or_of_pictures_looks_on() -> None:
    disturbed = CarRacing(Senses(history=2, shuffle=3, missing=0.3))
    plain = CarRacing(Senses(history=4)).make_vec(num_envs=2)
    states = CarRacing(Senses(history=1), view="state").make_vec(num_envs=2)
    tracing = Senses(history=4, traces=[30], neighbors=40)
    traced = CarRacing(tracing).make_vec(num_envs=2)
    for beside, sees, wanted_env in (
        (Senses(history=4), "readings", plain),
        (tracing, "readings", traced),
        (Senses(), "state", states),
    ):
        mixed = disturbed.make_vec(num_envs=2, beside=beside, beside_sees=sees)
        mixed.reset(seed=1)
        wanted, _ = wanted_env.reset(seed=1)
        for _ in range(4):
            seen = mixed.beside_observation()
            assert set(seen) == set(wanted) - {"privileged", "sensor"}
            for key, values in seen.items():
                np.testing.assert_array_equal(values, wanted[key], err_msg=f"{sees} {key}")
            actions = np.full((2, 3), [0.1, 0.5, -1.0])
            wanted = wanted_env.step(actions)[0]
            mixed.step(actions)


def test_a_saved_task_is_built_again() -> None:
    config = {
        "_target_": "somite.envs.car_racing.CarRacing",
        "senses": {"_target_": "somite.envs.sensors.Senses", "history": 4},
        "scenery": {"_target_": "somite.envs.car_racing.Scenery", "background": ["noise", "plain"]},
        "action_repeat": 4,
    }
    task = task_set_of(config)
    assert isinstance(task, CarRacing) and task.scenery == Scenery(background=("noise", "plain"))
    assert task.senses.history == 4 and task.max_episode_steps == 250
    with pytest.raises(UserError, match=r"this environment is a 'somite.envs.car_racing.task.os'; expected"):
        task_set_of({**config, "_target_": "somite.envs.car_racing.task.os"})
    with pytest.raises(
        UserError, match=r"scenery._target_ is 'os.system'; only names that start with somite"
    ):
        task_set_of({**config, "scenery": {"_target_": "os.system"}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patch_size": 7}, r"patches of 7 x 7 pixels do not divide a picture .*; .* can be 1, 2, 3, 4, 6"),
        ({"view": "pixels"}, "env.view must be one of patches, state, got 'pixels'"),
        ({"action_repeat": 0}, "env.action_repeat must be a whole number from 1 to 1,000, got 0"),
        ({"grey": "yes"}, "env.grey must be true or false, got 'yes'"),
        ({"slips": 1}, r"env.slips must be .*below 1, got 1"),
        ({"patience": -1}, "env.patience must be a whole number of 0 or more"),
    ],
)
def test_what_cannot_be_meant_is_refused(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CarRacing(**values)


def test_pixels_are_not_scaled() -> None:
    with pytest.raises(UserError, match=r"leave env.senses.scale=0.5 out"):
        CarRacing(Senses(scale=0.5)).make_vec(num_envs=1)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    wanted = "car_racing needs box2d, pygame-ce, opencv-python-headless: pip install 'somite[car_racing]' br"
    with pytest.raises(UserError, match=re.escape(wanted)):
        CarRacing()


def test_the_source_is_at_most_a_few_workers() -> None:
    source = RacingSource(3, CarRacing(view="state").rules, patch_size=6, threads=8)
    assert not hasattr(source._cars, "workers"), "three cars are not worth a process"
    source.close()
