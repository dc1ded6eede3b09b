"""Runs on a task of sensors: trained and evaluated, with memory and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from somite.agents import load_policy
from somite.agents.evaluation import evaluate as evaluation
from somite.agents.evaluation.evaluate import Row
from somite.agents.training.loop import Run
from somite.envs.errors import UserError
from somite.scripts import train
from tests.agents.runs import compose, read_metrics

ROLLOUT = 8 * 16
TINY = (
    "env=cartpole_swingup",
    "env.max_episode_steps=20",
    "algorithm.num_envs=8",
    "algorithm.n_steps=16",
    "algorithm.sequence_length=8",
    "algorithm.batch_size=64",
    "algorithm.n_epochs=2",
    "algorithm.learning_rate=1e-2",
    f"algorithm.total_steps={3 * ROLLOUT}",
    f"algorithm.checkpoint_every={ROLLOUT}",
    f"algorithm.validate_every={ROLLOUT}",
    "device=cpu",
    "threads=1",
)
"""Three updates of 128 steps each."""

AGENTS = {
    "attention_neuron": ("agent=attention_neuron",),
    "deep_set": ("agent=deep_set", "agent.width=8", "agent.critic=shared", "env.senses.blinking=0.2"),
    "sensor_transformer": ("agent=sensor_transformer", "agent.width=16", "env.senses.history=3"),
    "mlp": ("agent=mlp", "agent.width=16"),
}
INVARIANT = [name for name in AGENTS if name != "mlp"]


def make_run(folder: Path, name: str, *overrides: str) -> Run:
    return Run(compose(*TINY, *AGENTS[name], *overrides), folder, torch.device("cpu"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run of every agent that has made all its steps."""
    folder = tmp_path_factory.mktemp("runs")
    found = {name: make_run(folder / name, name) for name in AGENTS}
    for run in found.values():
        run.learn()
    return found


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.chdir(tmp_path)


def results_of(run: Run, *overrides: str) -> Row:
    config = compose(f"run={run.folder}", "episodes=6", "device=cpu", *overrides, name="evaluate")
    (row,) = evaluation.evaluate(config)
    return row


@pytest.mark.parametrize("name", AGENTS)
def test_a_run_learns_and_publishes_what_it_learnt(name: str, runs: dict[str, Run]) -> None:
    run = runs[name]
    agent = load_policy(run.folder)
    assert type(agent.policy) is type(run.policy)
    for key, value in run.policy.state_dict().items():
        assert torch.equal(agent.policy.state_dict()[key], value), key
    start = make_run(run.folder.parent / f"{name}-start", name).policy.state_dict()
    moved = [
        key for key, parameter in run.policy.named_parameters() if not torch.equal(parameter, start[key])
    ]
    assert moved == [key for key, _ in run.policy.named_parameters()], "all of them"
    published = name == "attention_neuron"
    assert published or agent.policy.normalizer.token_shift.abs().max() > 0
    assert not published or agent.policy.normalizer.token_shift.abs().max() == 0, "no normaliser"
    assert agent.policy.normalizer.privileged_shift.abs().max() > 0
    said = agent.description["environment"]
    assert said["seen"] == ["cartpole_swingup"] and said["unseen"] == []
    assert said["config"]["max_episode_steps"] == 20
    steps = [int(row["step"]) for row in read_metrics(run.folder) if row["train/loss"]]
    assert steps == [ROLLOUT, 2 * ROLLOUT, 3 * ROLLOUT] and (run.folder / "best").is_dir()


@pytest.mark.parametrize("name", AGENTS)
def test_only_the_ordinary_network_minds_the_order(name: str, runs: dict[str, Run]) -> None:
    """Through the configuration of an evaluation: the same starts, the sensors shuffled at reset."""
    plain, shuffled = (results_of(runs[name], f"env.senses.shuffle={how}") for how in ("never", "episode"))
    difference = abs(plain.mean - shuffled.mean)
    assert difference < 1e-4 if name in INVARIANT else difference > 1e-3
    assert plain.random_mean == shuffled.random_mean, "the same starts and random actions"


@pytest.mark.parametrize("name", INVARIANT)
def test_an_invariant_policy_is_tried_with_senses_that_it_has_never_met(
    name: str, runs: dict[str, Run]
) -> None:
    plain = results_of(runs[name])
    met = ("duplicates=1", "noise_channels=5", "missing=0.4", "stuck=2", "shuffle=5")
    row = results_of(runs[name], *(f"env.senses.{sense}" for sense in met), "random_baseline=false")
    assert np.isfinite(row.mean) and row.mean != plain.mean
    if name == "sensor_transformer":
        row = results_of(runs[name], "env.senses.duplicates=1", "random_baseline=false")
        assert row.mean == pytest.approx(plain.mean, rel=1e-5), "averages do not see copies"
    fixed = [
        results_of(
            *(runs[name], "env.starts=fixed", "env.senses.blinking=0", f"seed={seed}"),
            "random_baseline=false",
        ).mean
        for seed in (1000, 77)
    ]
    assert fixed[0] == fixed[1] != plain.mean, "the starts of the repository, whatever the seed"


@pytest.mark.parametrize("senses", ["duplicates=1", "noise_channels=2"])
def test_the_ordinary_network_is_refused_another_number_of_sensors(senses: str, runs: dict[str, Run]) -> None:
    with pytest.raises(UserError, match="SensorMLP was built for n_tokens=5.*an invariant policy takes any"):
        results_of(runs["mlp"], f"env.senses.{senses}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["agent=smp"], "SMP reads limbs, but this environment's tokens are sensors; what fits: agent=att"),
        (["agent=deep_set", "env.senses.stuck=9"], "env.senses.stuck is 9, but the sensors have 5 channels"),
    ],
)
def test_what_cannot_be_meant_gives_one_message_and_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as leaving:
        train.main([*TINY, *arguments])
    err = capsys.readouterr().err
    assert leaving.value.code == 2 and message in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
