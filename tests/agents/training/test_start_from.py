"""A run that begins with what another one has learnt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from somite.agents import load_policy
from somite.agents.policies import SensorTransformer
from somite.agents.training.loop import Run
from somite.agents.training.resume import of_learning
from somite.envs.errors import UserError
from somite.envs.locomotion import build
from somite.envs.sensors import Senses
from somite.envs.tokens import TokenSpec
from tests.agents.runs import compose

GIVEN = (
    "env=cartpole_swingup",
    "env.max_episode_steps=20",
    "agent=sensor_transformer",
    "env.senses.history=2",
    "algorithm.num_envs=8",
    "algorithm.n_steps=8",
    "algorithm.batch_size=32",
    "algorithm.total_steps=256",
    "algorithm.validate_every=0",
    "device=cpu",
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    Run(compose(*GIVEN, "seed=3"), folder, CPU).learn()
    return folder


def test_what_was_learnt_is_taken_over(first: Path, tmp_path: Path) -> None:
    learnt = load_policy(first).policy
    run = Run(compose(*GIVEN, f"start_from={first}"), tmp_path / "whole", CPU)
    for name, parameter in run.policy.named_parameters():
        assert torch.equal(parameter, learnt.get_parameter(name)), name  # critic and exploration, too
    assert torch.equal(run.policy.normalizer.token_scale, learnt.normalizer.token_scale)
    assert learnt.log_std.item() != learnt.initial_log_std and run.steps == 0


def test_what_it_began_with_has_seen_stays_seen(tmp_path: Path) -> None:
    tiny = ("env=cheetah", "agent.width=8", "algorithm.num_envs=1", "algorithm.batch_size=8")
    seen = ["cheetah_2_back", "cheetah_3_front"]
    given = [(*tiny, "device=cpu", f"env.bodies=[{name}]") for name in seen]
    given[1] = (*given[1], f"start_from={tmp_path / seen[0]}")
    for arguments, name in zip(given, seen, strict=True):
        Run(compose(*arguments), tmp_path / name, CPU).save()
    Run(compose(*given[1]), tmp_path / seen[1], CPU).save()  # going on, it knows as much
    agent = load_policy(tmp_path / seen[1])
    assert agent.environment["seen"] == seen[1:]
    assert agent.environment["identities"] == {name: build(name).identity for name in seen}


def test_another_critic_and_another_exploration_are_new(first: Path, tmp_path: Path) -> None:
    given = (f"start_from={first}", "agent.initial_log_std=-2", "agent.critic=shared", "agent.identify=0.1")
    run = Run(compose(*GIVEN, *given), tmp_path, CPU)
    learnt = load_policy(first).policy
    for name, parameter in run.policy.acting_parameters().items():
        assert torch.equal(parameter, learnt.acting_parameters()[name]), name
    assert run.policy.log_std.item() == -2 and learnt.log_std.item() != -2
    run.learn()
    for name, parameter in run.policy.acting_parameters().items():
        assert not torch.equal(parameter, learnt.acting_parameters()[name]), name
    # Going on is with the run's own.
    more = Run(compose(*GIVEN, *given, "algorithm.total_steps=512"), tmp_path, CPU)
    for name, parameter in more.policy.named_parameters():
        assert torch.equal(parameter, run.policy.get_parameter(name)), name


def test_a_rate_that_does_not_destroy_what_was_learnt_is_reached_slowly(first: Path, tmp_path: Path) -> None:
    constant = "algorithm.learning_rate_schedule=constant"

    def rates(folder: str, *given: str) -> list[float]:
        """Before the first rollout, after 5 and after 20 of 64 steps each."""
        run = Run(compose(*GIVEN, constant, "algorithm.total_steps=6400", *given), tmp_path / folder, CPU)
        continued = run.learner._continued
        return [run.algorithm.rate(64 * updates, continued) for updates in (0, 5, 20)]

    assert rates("new") == pytest.approx([1e-3, 1e-3, 1e-3])
    assert rates("more", f"start_from={first}") == pytest.approx([0, 5e-5, 1e-4])
    own = (f"start_from={first}", "algorithm.learning_rate=4e-4")
    assert rates("own", *own) == pytest.approx([0, 2e-4, 4e-4])


def test_another_agent_is_refused(first: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds width=32; the configuration asks for width=16$"):
        Run(compose(*GIVEN, f"start_from={first}", "agent.width=16"), tmp_path / "a", CPU)
    with pytest.raises(UserError, match="holds .*features={'reading': 1, 'change': 1}; .*, 'trace': 5}$"):
        Run(compose(*GIVEN, f"start_from={first}", "env.senses.traces=[9]"), tmp_path / "a", CPU)
    with pytest.raises(UserError, match="holds agent=SensorTransformer; .* asks for agent=DeepSet$"):
        Run(compose(*GIVEN, f"start_from={first}", "agent=deep_set"), tmp_path / "a", CPU)
    with pytest.raises(UserError, match="no run 'nobody'"):
        Run(compose(*GIVEN, "start_from=nobody"), tmp_path / "b", CPU)


class Judged(SensorTransformer):
    """A user's own, with a critic of its own size."""

    training_modules = (*SensorTransformer.training_modules, "judge")

    def __init__(self, spec: TokenSpec, judge_width: int = 8, **others: object) -> None:
        super().__init__(spec, **others)
        self.judge_width = judge_width
        self.judge = torch.nn.Linear(self.width, judge_width)


def test_states_tell_which_arguments_only_learning_needs() -> None:
    policy = Judged(Senses().spec(), n_actions=1, n_recent=1, n_privileged=5)
    state = torch.get_rng_state()
    found = {name: of_learning(policy, name, value) for name, value in OTHERS.items()}
    assert torch.equal(torch.get_rng_state(), state)
    of_learning_only = {"judge_width", "critic", "identify", "initial_log_std", "n_sensors"}
    assert {name for name, harmless in found.items() if harmless} == of_learning_only


OTHERS = {
    "judge_width": 4, "critic": "shared", "identify": 0.5, "initial_log_std": -1.0, "n_sensors": 9,
    "width": 16, "heads": 1, "n_privileged": 7, "features": {},
}  # fmt: skip


def test_a_search_starts_there(first: Path, tmp_path: Path) -> None:
    evolved = (*GIVEN[:4], "algorithm=cma_es", "device=cpu", "algorithm.generations=1", f"start_from={first}")
    small = ("algorithm.population=4", "algorithm.episodes=1", "algorithm.diagonal=true", "threads=1")
    with pytest.raises(UserError, match="algorithm.start=zero with zeros"):
        Run(compose(*evolved, *small, "algorithm.start=zero"), tmp_path / "a", CPU)
    run = Run(compose(*evolved, *small), tmp_path / "b", CPU)
    learnt = load_policy(first).policy.acting_parameters()
    flat = torch.cat([parameter.flatten() for parameter in learnt.values()]).double()
    torch.testing.assert_close(torch.from_numpy(run.learner.search.mean), flat.detach())
