"""The keys around the device, as a whole run takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from somite.agents.training import loop as training
from somite.envs.errors import UserError

from .runs import TINY, compose, make_run

SEARCH = ("env=cartpole_swingup", "agent=attention_neuron", "algorithm=cma_es", "device=cpu")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((*SEARCH, "precision=bf16"), "precision=bf16 was asked for, but algorithm=cma_es"),
        ((*TINY, "device=gpu"), "there is no device=gpu; did you mean 'cpu'"),
    ],
)
def test_what_is_invalid_is_said_before_a_folder_is_made(
    overrides: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "Run", lambda *_: pytest.fail("a run was made"))
    with pytest.raises(UserError, match=message):
        training.train(compose(*overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_knows_where_it_is_simulated_and_in_what_it_computes(tmp_path: Path) -> None:
    run = make_run(tmp_path, "precision=bf16")
    assert run.task_set.simulation == "cpu" and run.setup.precision == "bf16"
    assert run.learner.network.precision == "bf16"


class Greedy:
    """A run that wants more memory than there is, while it is made or later."""

    when = "made"

    def __init__(self, *args: Any) -> None:
        self.ask("made")

    def learn(self, *args: Any) -> None:
        self.ask("learn")

    def ask(self, now: str) -> None:
        if self.when == now:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")


@pytest.mark.parametrize("when", ["made", "learn"])
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((*TINY, "algorithm.num_envs=4096"), "algorithm.num_envs=4096"),
        (SEARCH, "algorithm.shard_size=256"),
        ((*SEARCH, "algorithm.shard_size=64"), "algorithm.shard_size=64"),
    ],
)
def test_memory_that_does_not_suffice_is_said_with_the_key(
    when: str,
    overrides: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Greedy, "when", when)
    monkeypatch.setattr(training, "Run", Greedy)
    with pytest.raises(UserError, match=f"this run does not fit into the memory of cpu with {message}"):
        training.train(compose(*overrides), tmp_path / "run")
