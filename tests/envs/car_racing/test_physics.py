"""Without pictures, the same car on the same track earns the same rewards."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("Box2D")

from somite.envs.car_racing.simulation import STATE_NAMES, Racing, Tracks, read_cars

from .driving import Driver, Unseen


def state_of(env: Racing | Unseen) -> np.ndarray:
    car = env.car
    bodies = [car.hull, *car.wheels]
    places = [(*body.position, body.angle, *body.linearVelocity, body.angularVelocity) for body in bodies]
    wheels = [(w.omega, w.phase, w.gas, w.brake, w.joint.angle) for w in car.wheels]
    return np.concatenate([np.ravel(places), np.ravel(wheels)]).astype(float)


@pytest.mark.parametrize(("seed", "noise"), [(0, 0.05), (1, 0.3), (2, 2.0)])
def test_rewards_ends_and_states_equal_gymnasiums_over_1000_steps(seed: int, noise: float) -> None:
    ours, theirs = Racing(), Unseen()
    ours.reset(seed=seed)
    theirs.reset(seed=seed)
    assert ours.track == theirs.track
    driver, rewards = Driver(ours, seed, noise), []
    for _ in range(1000):
        action = driver.act()
        _, reward, terminated, truncated, info = ours.step(action)
        _, wanted, *rest = theirs.step(action)
        assert reward == pytest.approx(wanted, abs=1e-9) and (terminated, truncated, info) == tuple(rest)
        np.testing.assert_allclose(state_of(ours), state_of(theirs), rtol=0, atol=1e-9)
        rewards.append(reward)
        if terminated:
            break
    assert sum(reward > 0 for reward in rewards) > 20, "it drove over some tiles"


def test_leaving_the_field_ends_the_episode_as_gymnasium_has_it() -> None:
    ours, theirs = Racing(), Unseen()
    ours.reset(seed=3)
    theirs.reset(seed=3)
    found, steps = (0.0, False), 0
    while not found[1]:
        for env in (ours, theirs):  # blown sideways
            for body in (env.car.hull, *env.car.wheels):
                body.linearVelocity = (200.0, 0.0)
        action = np.array([0.0, 0.5, 0.0])
        found, wanted = ours.step(action)[1:], theirs.step(action)[1:]
        assert found == wanted and steps < 500
        steps += 1
    assert found[0] == -100 and found[3] == {"lap_finished": False} and steps > 10


def test_a_second_episode_is_that_of_its_own_seed() -> None:
    used, fresh = Racing(), Racing()
    used.reset(seed=1)
    for _ in range(30):
        used.step(np.array([0.1, 0.5, 0.0]))
    used.reset(seed=2)
    fresh.reset(seed=2)
    for _ in range(30):
        assert used.step(np.array([0.0, 0.5, 0.0]))[1] == fresh.step(np.array([0.0, 0.5, 0.0]))[1]
    np.testing.assert_array_equal(state_of(used), state_of(fresh))


def test_the_state_says_where_the_road_is() -> None:
    env = Racing()
    env.reset(seed=5)
    tracks, states = Tracks(2), np.zeros((2, len(STATE_NAMES)), np.float32)
    tracks.set(1, env)

    def read() -> dict[str, float]:
        tracks.read([1], read_cars([env]), states)
        assert not states[0].any(), "another row"
        return dict(zip(STATE_NAMES, states[1].tolist(), strict=True))

    start = read()
    assert abs(start["offset"]) < 0.5 and start["cos_heading"] > 0.99
    assert start["ahead_forward_3"] > 5 and abs(start["ahead_right_1"]) < 1
    for _ in range(60):
        env.step(np.array([0.0, 0.5, 0.0]))
    straight = read()
    assert straight["forward_speed"] > 5 and straight["wheel_speed_2"] > 5
    for _ in range(10):  # to the right: the road's middle is then to the left
        env.step(np.array([0.5, 0.1, 0.0]))
    turned = read()
    assert turned["offset"] < straight["offset"] and turned["turning_rate"] < 0
    assert turned["steering_angle"] < -0.1 and turned["sin_heading"] < straight["sin_heading"]
    assert turned["ahead_right_10"] < straight["ahead_right_10"]
