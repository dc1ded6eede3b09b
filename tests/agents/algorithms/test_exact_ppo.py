"""PPO that is stopped and gone on with learns what it would have learnt without a stop, to the last bit."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
import torch

from somite.agents.training.loop import Run
from somite.agents.training.resume import take_random_states
from tests.agents.exact import differences
from tests.agents.runs import ROLLOUT, TINY, compose

BUDGET = (
    f"algorithm.total_steps={4 * ROLLOUT}",
    "algorithm.checkpoint_every=1e6",  # a stop saves
    f"algorithm.validate_every={2 * ROLLOUT}",
)
SENSORS = (*(setting for setting in TINY if not setting.startswith("env.")), *BUDGET)
DISTURBED = ("env.senses.shuffle=7", "env.senses.noise_channels=2", "env.senses.blinking=0.2")
ON_WARP = ("env.bodies=[cheetah_2_back]", "simulation=warp", "env.variation.mass=[0.5,2]")
CASES = {
    "limbs": (*TINY, *BUDGET),
    "limbs that vary": (
        *(*TINY, *BUDGET, "agent=smp", "env.variation.mass=[0.5,2]", "env.world.slope=[-5,5]"),
        *("env.damage.probability=0.9", "env.damage.step=[2,9]", "env.world.push=[0.1,1]"),
    ),
    "sensors": (*SENSORS, "env=cartpole_swingup", "agent=sensor_transformer", *DISTURBED),
    "sensors with memory": (
        *(*SENSORS, "env=cartpole_swingup", "agent=deep_set", "agent.recurrent=true"),
        *("algorithm.sequence_length=8", *DISTURBED),
    ),
    "sensors on a device": (
        *(*SENSORS, "env=cartpole_swingup", "simulation=torch", "agent=deep_set", "agent.recurrent=true"),
        "algorithm.sequence_length=8",
    ),
    "bodies on a device": (*TINY, *BUDGET, *ON_WARP),
    "another Gymnasium task": (*SENSORS, "env=gymnasium", "env.id=Pendulum-v1", "agent=sensor_transformer"),
    "patches of a car's picture": (
        *(*SENSORS, "env=car_racing", "env.patch_size=24", "env.max_episode_steps=200", "env.slips=0.1"),
        *(
            "agent=patch_transformer",
            "env.senses.shuffle=episode",
            "algorithm.num_envs=2",
            "algorithm.n_steps=16",
        ),
        *("algorithm.total_steps=128", "algorithm.validate_every=0"),
    ),
    "a batched Gymnasium task": (*SENSORS, "env=gymnasium", "env.id=Hopper-v5", "agent=sensor_transformer"),
}

SLOW = ("bodies on a device",)  # Warp compiles for a minute; snapshots of its bodies are tested apart


class Stopper:
    """A signal after so many environment steps, as if the user had sent it then."""

    def __init__(self, run: Run, after: int) -> None:
        step = run.learner.env.step
        run.learner.env.step = lambda actions: self._count(step(actions))
        self.run, self.left = run, after

    def _count(self, result):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)
        return result


def make(folder: Path, *settings: str) -> Run:
    return Run(compose(*settings), folder, torch.device("cpu"))


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] if case in SLOW else []) for case in CASES]
)
def test_a_run_that_is_stopped_twice_is_the_run_that_was_not(case: str, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    make(whole, *CASES[case]).learn()
    for steps in (37, 20):  # in the midst of the third rollout, then of the one after the next
        run = make(stopped, *CASES[case])
        Stopper(run, steps)
        with pytest.raises(SystemExit) as left:
            run.learn()
        assert left.value.code == 128 + signal.SIGTERM
    last = make(stopped, *CASES[case])
    rollout = last.algorithm.num_envs * last.algorithm.n_steps
    assert last.steps == 3 * rollout and not last.changes.notes
    last.learn()
    assert differences(whole, stopped) == []


@pytest.fixture(scope="module")
def with_memory(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on sensors with memory that was not stopped, and one that was."""
    folder, settings = tmp_path_factory.mktemp("with_memory"), CASES["sensors with memory"]
    make(folder / "whole", *settings).learn()
    run = make(folder / "stopped", *settings)
    Stopper(run, 37)
    with pytest.raises(SystemExit):
        run.learn()
    return folder / "whole", folder / "stopped"


@pytest.mark.parametrize("part", ["rows", "observation", "memory", "random", "optimizer"])
def test_every_part_of_what_is_kept_is_needed(
    part: str, with_memory: tuple[Path, Path], tmp_path: Path
) -> None:
    """The negative control: a run that goes on without one of its parts becomes another."""
    whole, stopped = with_memory[0], shutil.copytree(with_memory[1], tmp_path / "stopped")
    last = make(stopped, *CASES["sensors with memory"])
    learner = last.learner
    if part == "rows":
        learner.env.reset()
    elif part == "observation":
        learner.observation["tokens"][:] = 0
    elif part == "memory":
        assert learner.network.memory
        learner.network.memory = {}
    elif part == "random":
        last._random = take_random_states(torch.device("cpu"))
    elif part == "optimizer":
        learner.optimizer.state.clear()
    last.learn()
    assert differences(whole, stopped)
