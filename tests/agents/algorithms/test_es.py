"""Evolution strategies: what the search climbs, what it keeps, and which starts its pairs meet."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from somite.agents.algorithms import ES
from somite.agents.algorithms.es import ESSearch
from somite.agents.training.faults import RunFault
from somite.envs import cores
from somite.envs.errors import UserError
from tests.agents.cma_runs import column, history, make_run, policy_bytes

WANTED = np.array([1.0, -2.0, 3.0, 0.5])


def make_search(generations: int = 300, n: int = 4, **more: object) -> ESSearch:
    given = {"population": 32, "sd": 0.1, "last_sd": 0.05, "learning_rate": 0.05} | more
    return ESSearch(ES(generations=generations, **given), np.zeros(n), 0)


def bowl(candidates: np.ndarray) -> np.ndarray:
    return -np.square(candidates - WANTED).sum(1)


@pytest.mark.parametrize("more", [{}, {"shaping": "ranks", "starts": "generation"}])
def test_the_top_of_a_bowl_is_found_under_noise(more: dict) -> None:
    search, noise = make_search(last_learning_rate=0.02, population=128, **more), np.random.default_rng(0)
    away = np.zeros(2)
    for generation in range(400):
        search.tell(bowl(search.ask()) + noise.normal(size=128))
        if generation >= 200:
            away += [np.linalg.norm(found - WANTED) for found in (search.average, search.mean)]
    np.testing.assert_allclose(search.average, WANTED, atol=0.3)
    assert away[0] < away[1]


def test_a_first_step_has_the_length_of_the_rate_and_goes_uphill() -> None:
    search = make_search(learning_rate=0.02, population=512)
    search.tell(bowl(search.ask()))
    np.testing.assert_allclose(search.mean, 0.02 * np.sign(WANTED), rtol=1e-3)


def test_candidates_are_pairs_whose_deviation_falls() -> None:
    search = make_search(100, n=2000, population=40)
    spread = []
    for generation in range(101):
        candidates = search.ask()
        if generation in (0, 50, 100):
            middles = (candidates[::2] + candidates[1::2]) / 2
            np.testing.assert_allclose(middles, np.broadcast_to(search.mean, middles.shape), atol=1e-5)
            spread.append((candidates[::2] - search.mean).std())
        search.tell(np.zeros(40))
    np.testing.assert_allclose(spread, [0.1, 0.1 * 0.5**0.5, 0.05], rtol=0.02)


def test_weights_decay_towards_zero_where_nothing_is_told() -> None:
    search = ESSearch(ES(population=8, weight_decay=0.1, learning_rate=0.1), np.ones(3), 0)
    search.tell(np.zeros(8))
    np.testing.assert_allclose(search.mean, 0.99)


def test_a_search_goes_on_from_a_file_to_the_last_bit() -> None:
    whole = make_search()
    for _ in range(7):
        whole.tell(bowl(whole.ask()))
    file = io.BytesIO()
    torch.save(whole.state(), file)
    file.seek(0)
    other = ESSearch.from_state(whole.settings, torch.load(file, weights_only=True))
    for search in (whole, other):
        for _ in range(3):
            search.tell(bowl(search.ask()))
    assert np.array_equal(whole.mean, other.mean) and np.array_equal(whole.average, other.average)


@pytest.mark.parametrize(
    "change",
    [lambda s: s.pop("mean"), lambda s: s.update(first=torch.zeros(3)), lambda s: s.update(mean=1.0)],
)
def test_what_is_no_state_of_it_is_told(change: object) -> None:
    state = make_search().state()
    change(state)
    with pytest.raises(UserError, match="no saved search of algorithm=es: one has average, first"):
        ESSearch.from_state(ES(), state)


def test_a_return_that_is_not_finite_stops_it() -> None:
    search = make_search()
    with pytest.raises(RunFault, match="candidate 3 of generation 0"):
        search.tell(np.where(np.arange(32) == 3, np.nan, 0.0))


def test_memory_grows_with_the_parameters_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "free_memory", lambda: 2**30)
    assert make_search(n=100_000, population=64).ask().shape == (64, 100_000)
    with pytest.raises(UserError, match=r"100,000 parameters takes .* lower algorithm.population"):
        make_search(n=100_000, population=4096)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"population": 33}, "makes pairs, but algorithm.population is 33; take 34"),
        ({"shaping": "ranks"}, "say algorithm.starts=generation"),
        ({"starts": "pairs"}, "did you mean 'pair'"),
    ],
)
def test_settings_that_cannot_be_meant_are_told(given: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ES(**given)


def test_a_power_of_the_return_keeps_its_sign() -> None:
    returns = np.array([[[-2.0, 3.0]]])
    np.testing.assert_allclose(ES(fitness_power=3).fitness(returns), [(-8 + 27) / 2])


def test_a_population_fits_where_it_is_simulated() -> None:
    settings = ES(episodes=4)
    assert settings.sized(1, on_gpu=False).population == 1024
    for bodies, population in ((1, 4096), (3, 1364), (9999, 4)):
        assert settings.sized(bodies, on_gpu=True).population == population
    assert ES(population=64).sized(1, on_gpu=True).population == 64


@pytest.mark.parametrize("starts", ["pair", "generation"])
def test_a_pair_meets_the_same_starts_and_others_as_asked(starts: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, "algorithm=es", f"algorithm.starts={starts}", "algorithm.shard_size=3")
    learner = run.learner
    alike = np.zeros_like(learner.search.ask())
    found = learner.population.evaluate(alike, learner._starts()).returns[:, 0]  # found: (8, 3)
    learner.close()
    np.testing.assert_allclose(found[::2], found[1::2], rtol=1e-5)
    assert np.allclose(found, found[:1], rtol=1e-5) == (starts == "generation")


def test_half_a_run_and_the_other_half_are_a_whole_one(tmp_path: Path) -> None:
    constant = "algorithm=es", "algorithm.last_sd=0.05", "algorithm.last_learning_rate=0.03"
    make_run(tmp_path / "whole", *constant).learn()
    make_run(tmp_path / "halves", *constant, "algorithm.generations=4").learn()
    make_run(tmp_path / "halves", *constant).learn()
    assert len(column(tmp_path / "whole", "es/mean")) == 6
    assert history(tmp_path / "whole") == history(tmp_path / "halves")
    for name in ("policy", "best"):
        assert policy_bytes(tmp_path / "whole", name) == policy_bytes(tmp_path / "halves", name)
