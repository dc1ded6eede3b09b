"""Training programs that are told to stop, and resumed by another process, end as if they had run through."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.agents.exact import differences
from tests.agents.runs import ROLLOUT, TINY
from tests.faults.processes import Nursery

RACING_TEACHER = Path(__file__).parents[3] / "docs" / "results" / "car_racing" / "teacher_slips" / "policy"
OTHERS = ("device=cpu", "threads=1")
CAR = (
    *("env=car_racing", "env.patch_size=24", "env.action_repeat=4", "env.senses.shuffle=episode"),
    *("agent=patch_transformer", "agent.width=16"),
)
CASES = {
    "ppo, limbs": (
        *("env=families", "env.families=[cheetah,walker]", "env.bodies=[cheetah_2_back,walker_3]"),
        *("env.settings.cheetah.task.max_episode_steps=20", "env.settings.walker.task.max_episode_steps=15"),
        *(*(text for text in TINY if not text.startswith("env.")), f"algorithm.total_steps={8 * ROLLOUT}"),
    ),
    "cma_es, sensors": (
        *("env=cartpole_swingup", "env.max_episode_steps=200", "agent=attention_neuron", "algorithm=cma_es"),
        *("algorithm.generations=12", "algorithm.population=8", "algorithm.episodes=2"),
        *("algorithm.checkpoint_every=3", "algorithm.validate_every=2", "algorithm.validation_episodes=4"),
        *OTHERS,
    ),
    "clone, patches": (
        *(*CAR, "algorithm=clone", f"algorithm.teacher={RACING_TEACHER}", "algorithm.teacher_steps=64"),
        *("algorithm.total_steps=512", "algorithm.num_envs=8", "algorithm.n_steps=8", "algorithm.noise=0.1"),
        *(
            "algorithm.batch_size=32",
            "algorithm.checkpoint_every=1e6",
            "algorithm.zero_shot_every=0",
            *OTHERS,
        ),
    ),
    "cma_es, limbs": (
        *("env=cheetah", "env.bodies=[cheetah_2_back,cheetah_3_front]", "env.task.max_episode_steps=60"),
        *("agent=smp", "agent.width=8", "agent.message=4", "algorithm=cma_es", "algorithm.diagonal=true"),
        *("algorithm.generations=12", "algorithm.population=8", "algorithm.episodes=2"),
        *("algorithm.checkpoint_every=3", "algorithm.validate_every=0", *OTHERS),
    ),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in list(CASES)[1:]]


def rows(folder: Path) -> int:
    file = folder / "metrics.csv"
    return len(file.read_text().splitlines()) - 1 if file.exists() else 0


@pytest.mark.parametrize("case", [next(iter(CASES)), *SLOW])
def test_a_program_that_is_stopped_and_resumed_ends_as_if_it_had_run_through(
    case: str, nursery: Nursery, tmp_path: Path
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    through = nursery.start(tmp_path, *CASES[case], f"hydra.run.dir={whole}")
    assert through.wait(600) == 0, through.printed
    first = nursery.start(tmp_path, *CASES[case], f"hydra.run.dir={stopped}")
    first.until(lambda: rows(stopped) >= 2)
    first.send(signal.SIGTERM)
    assert first.wait(600) == 128 + signal.SIGTERM, first.printed
    assert f"resume={stopped}" in first.printed
    second = nursery.start(tmp_path, f"resume={stopped}")
    assert second.wait(600) == 0, second.printed
    assert "had it never stopped" not in second.printed
    assert differences(whole, stopped) == []
