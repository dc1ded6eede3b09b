"""Closed environments let everything go, and say so to whoever asks more of them."""

from __future__ import annotations

import gc
import importlib.util
import os
import weakref
from collections import Counter
from pathlib import Path

import gymnasium
import pytest
import torch

from somite.envs import UserError
from somite.envs.car_racing import CarRacing
from somite.envs.locomotion import BodyVariation, Damage, World, make_vec
from somite.envs.locomotion.readings import Readings
from somite.envs.locomotion.varied.variants import Variant
from somite.envs.sensors import CartPoleSwingUp, GymnasiumTask, Senses

CHEETAH = "cheetah_4_front"
SENSES = Senses(shuffle=5, noise_channels=2, blinking=0.2)
CASES = {
    "plain": lambda: make_vec([CHEETAH, "walker_3", "hopper_3", "ant"], 8, threads=2),
    "varied": lambda: make_vec([CHEETAH], 4, variation=BodyVariation(length=[0.8, 1.2])),
    "uneven": lambda: make_vec([CHEETAH], 4, world=World(step_height=[0, 0.05], variants=3)),
    "damaged": lambda: make_vec(["ant"], 4, damage=Damage(probability=1.0, step=[1, 2])),
    "swing-up": lambda: CartPoleSwingUp(SENSES).make_vec(num_envs=4),
    "batched": lambda: GymnasiumTask("Hopper-v5", senses=SENSES).make_vec(num_envs=4),
    "row by row": lambda: GymnasiumTask("Pendulum-v1", senses=SENSES).make_vec(num_envs=4),
    "one body": lambda: gymnasium.make("somite/Locomotion-v0", body=CHEETAH).unwrapped,
}
if importlib.util.find_spec("Box2D"):
    CASES["cars"] = lambda: CarRacing().make_vec(num_envs=2, threads=1)


def held() -> Counter[str]:
    """Our own objects, by type; open files and threads."""
    gc.collect()
    found = Counter(
        type(one).__qualname__
        for one in gc.get_objects()
        if str(type(one).__module__).startswith("somite.envs")
    )
    if os.path.isdir("/proc/self"):
        found |= {name: len(os.listdir(f"/proc/self/{name}")) for name in ("fd", "task")}
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_closed_environment_leaves_nothing(case: str) -> None:
    counts = []
    for _ in range(3):  # whoever is first fills caches that have an end
        env = CASES[case]()
        env.reset(seed=0)
        for _ in range(3):
            env.step(env.action_space.sample())
        env.close()
        gone = weakref.ref(env)
        del env
        counts.append(held())
        assert gone() is None
    assert counts[2] == counts[1]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="tells how much memory is used")
def test_compiled_variants_take_memory_while_the_environment_is_open() -> None:
    pages = []
    for _ in range(4):
        env = CASES["varied"]()
        env.reset(seed=0)
        env.close()  # it need not be forgotten for this
        gc.collect()
        assert not any(type(one) in (Variant, Readings) for one in gc.get_objects())
        pages.append(int(Path("/proc/self/statm").read_text().split()[1]))
    grown = (pages[-1] - pages[0]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    assert grown < 20, f"{grown:.0f} MiB in three environments"  # it was 40


@pytest.mark.parametrize("case", [*CASES, "on a device"])
def test_a_closed_environment_says_so(case: str) -> None:
    env = CASES[case]() if case in CASES else CartPoleSwingUp(SENSES).make_env(None, 4)
    env.reset(seed=0)
    actions = env.action_space.sample() if hasattr(env, "action_space") else torch.zeros(4, 1)
    env.close()
    env.close()
    vector = getattr(env, "vector", env)
    asked = [env.reset, lambda: env.step(actions), vector.snapshot, lambda: vector.restore({})]
    if hasattr(vector, "simulated"):
        asked += [lambda: vector.get_state(0), lambda: vector.simulated(0)]
    for ask in asked:
        with pytest.raises(UserError, match="has been closed"):
            ask()
