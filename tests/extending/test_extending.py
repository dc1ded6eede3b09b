"""What docs/extending.md says: its toys lie in a user's folder, and its commands run there."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra.core.config_store import ConfigStore
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from somite.agents.storage.policy import CheckpointError, load_policy
from somite.agents.storage.run_folder import find_run, list_checkpoints
from somite.envs import user_modules
from somite.envs.errors import UserError
from somite.scripts.cli.multirun import Job, arguments_of_sweep, write_sweep

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
PARTS = {part.splitlines()[0]: part for part in PAGE.split("\n## ")[1:]}
"""Of the page, by their headings."""

TINY = ["env.max_episode_steps=20", "threads=1", "device=cpu", "++algorithm.zero_shot_every=0"]
BUDGETS = {
    "ppo": ["total_steps=300", "num_envs=12", "n_steps=16", "batch_size=64", "n_epochs=1"],
    "climb": ["total_steps=300", "num_envs=8"],
    "cma_es": ["generations=2", "population=4", "episodes=2", "validate_every=0"],
}


def blocks(part: str, language: str) -> list[str]:
    """The fenced blocks of a language in a part of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PARTS[part], re.MULTILINE | re.DOTALL)


def commands(part: str) -> list[list[str]]:
    return [shlex.split(line) for block in blocks(part, "sh") for line in block.splitlines()]


def run(command: list[str]) -> None:
    """Runs a command here as the console script would, in a process that has imported none of the toys."""
    for name in [name for name, module in sys.modules.items() if is_toy(module)]:
        del sys.modules[name]
    os.environ.pop(user_modules.INHERITED, None)
    sys.argv = command
    importlib.import_module(f"somite.scripts.{command[0].removeprefix('somite-')}").main()


def is_toy(module: object) -> bool:
    return "extending-" in str(getattr(module, "__file__", ""))


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder with the toys of the page."""
    place = tmp_path_factory.mktemp("extending-")
    for part in PARTS:
        for language, comment in (("python", "#"), ("yaml", "#")):
            for block in blocks(part, language):
                file = place / block.splitlines()[0].removeprefix(comment).strip()
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block)
    monkeypatch.chdir(place)
    monkeypatch.setattr(user_modules, "_folder", None)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(user_modules.INHERITED, "")
    monkeypatch.setattr(ConfigStore.instance(), "repo", {**ConfigStore.instance().repo})
    torch.set_num_threads(1)
    yield place
    for name in [name for name, module in sys.modules.items() if is_toy(module)]:
        del sys.modules[name]


def scalars(run_folder: Path) -> set[str]:
    """Names in TensorBoard's event file."""
    events = EventAccumulator(str(run_folder))
    events.Reload()
    return set(events.Tags()["scalars"])


def tiny(command: list[str]) -> list[str]:
    """What makes a run of the page small."""
    chosen = next((name for name in BUDGETS if any(name in a for a in command)), "ppo")
    return [*TINY, *(f"algorithm.{setting}" for setting in BUDGETS[chosen])]


@pytest.mark.parametrize("part", PARTS)
def test_the_toys_train_resume_and_are_evaluated(part: str, folder: Path) -> None:
    for command in commands(part):
        if command[0] == "somite-evaluate":
            run([*command, "episodes=2", "device=cpu"])
            assert (find_run("last") / "evaluation" / "results.json").is_file()
        elif "resume=last" in command:
            before = len(list_checkpoints(find_run("last")))
            run([*command, "algorithm.total_steps=600"])
            assert len(list_checkpoints(find_run("last"))) > before
        else:
            run([*command, *tiny(command)])
            assert (find_run("last") / "policy" / "policy.json").is_file()
            told = "climb/return" if "climb" in " ".join(command) else "rollout/ep_rew_mean"
            assert told in scalars(find_run("last"))


def test_without_the_users_word_a_toy_is_refused_with_what_to_type(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    first, *_ = commands("A policy")
    run([*first, *tiny(first)])
    last = find_run("last")
    for command in (["somite-train", "resume=last"], ["somite-evaluate", "run=last", "device=cpu"]):
        with pytest.raises(SystemExit, match="2"):
            run(command)
        assert "agent._target_=votes.Votes" in capsys.readouterr().err
        assert "votes" not in sys.modules
    with pytest.raises(CheckpointError, match="import its module first"):
        load_policy(last)
    sys.path.append(str(folder))
    importlib.import_module("votes")
    assert type(load_policy(last).policy).__name__ == "Votes"


def test_a_sweep_imports_nothing_without_the_users_word(folder: Path) -> None:
    word = "agent._target_=votes.Votes"
    sweep = write_sweep("runs", [Job(("agent=Votes", word, "seed=0"), Path("runs/one"))])
    with pytest.raises(UserError, match=f"if you trust it, say it again: {word}"):
        arguments_of_sweep(sweep, ["resume=last_sweep"])
    assert arguments_of_sweep(sweep, ["resume=last_sweep", word])[-1] == word


REFUSED = {
    "agent._target_=votes.Vote": "the module 'votes' has no class 'Vote'; did you mean 'Votes'?",
    "agent._target_=vote.Votes": "there is no module 'vote', .*; did you mean 'votes'?",
    "agent._target_=os.PathLike": "PathLike is not a subclass of somite.agents.policies.base.Policy",
    "agent._target_=votes": "agent._target_ is 'votes'; only names that start with somite. are built",
}


@pytest.mark.parametrize("argument", REFUSED)
def test_what_is_no_policy_is_refused(argument: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(["somite-train", "env=cartpole_swingup", argument])
    assert re.search(REFUSED[argument], capsys.readouterr().err)


def test_a_forgotten_critic_is_refused_before_anything_is_trained(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    text = (folder / "votes.py").read_text()
    (folder / "votes.py").write_text(re.sub(r"    training_modules = .*\n", "", text))
    first, *_ = commands("A policy")
    with pytest.raises(SystemExit, match="2"):
        run([*(command := [*first, "algorithm=cma_es"]), *tiny(command)])
    assert "training_modules = ('value_head', 'critic_network')" in capsys.readouterr().err
