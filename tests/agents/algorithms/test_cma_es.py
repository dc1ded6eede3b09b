"""The search itself: what it finds, what it keeps, what it refuses, and whose random numbers it draws."""

from __future__ import annotations

import copy
import ctypes
import io
import operator
import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somite.agents.algorithms import CMAES
from somite.agents.algorithms.cma_es import CMASearch as Search
from somite.agents.device import threads_for_numpy
from somite.agents.training.faults import RunFault
from somite.envs import cores
from somite.envs.errors import UserError

MODES = {
    "full": {},
    "diagonal": {"diagonal": True},
    "mirrored": {"mirrored": True},
    "both": {"diagonal": True, "mirrored": True},
}


def settings_of(population: int = 12, **more: object) -> CMAES:
    return CMAES(population=population, **{"sigma0": 0.5, **more})


def make_search(
    n: int = 8, seed: int = 0, population: int = 12, start: float = 0.0, **more: object
) -> Search:
    return Search(settings_of(population, **more), np.full(n, start), seed)


def reloaded(search: Search, **more: object) -> Search:
    """The search after its state has been in a file that cannot carry code."""
    file = io.BytesIO()
    torch.save({"search": search.state()}, file)
    file.seek(0)
    return Search.from_state(settings_of(**more), torch.load(file, weights_only=True)["search"])


def bowl(candidates: np.ndarray) -> np.ndarray:
    """Fitness (P,) with its best, 0, where the parameters are 1, 2, 3, ...; long and narrow."""
    wanted = np.arange(1, candidates.shape[1] + 1)
    return -(np.square(candidates - wanted) / wanted).sum(1)


def advance(search: Search, generations: int) -> np.ndarray:
    """All candidates of so many generations, (G, P, n)."""
    asked = []
    for _ in range(generations):
        asked.append(search.ask().copy())
        search.tell(bowl(asked[-1]))
    return np.array(asked)


@pytest.mark.parametrize("mode", MODES)
def test_the_best_of_a_bowl_is_found(mode: str) -> None:
    search = make_search(**MODES[mode])
    advance(search, 150)
    assert search.generation == 150
    np.testing.assert_allclose(search.mean, np.arange(1, 9), atol=1e-3)
    assert search.sigma < 0.01


def test_it_is_the_greatest_fitness_that_is_searched_for() -> None:
    search = make_search()
    candidates = search.ask()
    fitness = bowl(candidates)
    search.tell(fitness)
    assert np.array_equal(search.best, candidates[fitness.argmax()])
    assert bowl(search.mean[None]) > bowl(np.zeros((1, 8))), "the mean moves up"


@pytest.mark.parametrize("start", [0.0, 3.0])
def test_candidates_scatter_around_the_start_with_sigma0(start: float) -> None:
    candidates = make_search(50, population=200, start=start, sigma0=0.1).ask()
    assert candidates.shape == (200, 50)
    assert abs(candidates.mean() - start) < 0.01 and candidates.std() == pytest.approx(0.1, rel=0.05)


def has_mirrors(candidates: np.ndarray, mean: np.ndarray) -> bool:
    """Whether the mirror image of every candidate at the mean is a candidate, too."""
    distances = np.abs((candidates - mean)[:, None] + (candidates - mean)[None]).max(-1)
    return bool((distances.min(1) < 1e-9).all())


@pytest.mark.parametrize(("n", "population"), [(6, 8), (320, 12)])
def test_mirrored_candidates_come_in_pairs_and_others_do_not(n: int, population: int) -> None:
    """With 300 parameters and more, pycma draws a pair of its own along its last move."""
    for mirrored in (True, False):
        search = make_search(n, population=population, mirrored=mirrored)
        assert search._strategy.mean_shift_samples is (n > 300)
        for _ in range(4):
            mean, candidates = search.mean, search.ask()
            assert has_mirrors(candidates, mean) is mirrored
            search.tell(bowl(candidates))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("population", [4, 12])
def test_numpys_global_stream_is_left_alone_and_has_no_influence(mode: str, population: int) -> None:
    runs = []
    for seed in (0, 1):
        np.random.seed(seed)
        before = np.random.get_state()[1].copy()
        runs.append(advance(make_search(population=population, **MODES[mode]), 6))
        assert np.array_equal(np.random.get_state()[1], before)
    assert np.array_equal(*runs)


def test_a_seed_decides_the_candidates() -> None:
    one, same, other = (advance(make_search(seed=seed), 5) for seed in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.isclose(one, other).any()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(MODES)), st.integers(0, 2**32), st.integers(0, 6), st.booleans(), st.booleans())
def test_a_search_goes_on_bit_for_bit(mode: str, seed: int, before: int, asked: bool, large: bool) -> None:
    """Also where candidates have been asked for and not yet told, and where pycma adds its own pair."""
    size = {"n": 320, "population": 8} if large else {}
    search = make_search(seed=seed, **size, **MODES[mode])
    advance(search, before)
    if asked:
        search.ask()
    other = reloaded(search, population=size.get("population", 12), **MODES[mode])
    assert np.array_equal(search.mean, other.mean) and other.generation == before
    assert search.best is other.best is None or np.array_equal(search.best, other.best)
    assert np.array_equal(advance(search, 4), advance(other, 4))
    assert np.array_equal(search.mean, other.mean) and search.sigma == other.sigma


@pytest.mark.parametrize("mode", MODES)
def test_a_search_that_is_reloaded_again_and_again_is_the_same_for_long(mode: str) -> None:
    """So long that its covariance is decomposed, its step size adapted and its history cut many times."""
    whole, search = make_search(20, **MODES[mode]), make_search(20, **MODES[mode])
    for _ in range(12):
        wanted = advance(whole, 25)
        search.ask()
        search = reloaded(search, **MODES[mode])
        assert np.array_equal(advance(search, 25), wanted)
    assert search.sigma < 0.4 and np.array_equal(whole.mean, search.mean)


def test_a_search_that_lost_its_random_stream_would_be_noticed() -> None:
    search = make_search()
    advance(search, 3)
    other = reloaded(search)
    other._strategy.opts["randn"].rng = np.random.default_rng(1)
    assert not np.array_equal(advance(search, 2), advance(other, 2))


@pytest.mark.parametrize("part", ["sm.C", "pc", "adapt_sigma.ps"])
def test_a_search_that_lost_a_part_would_be_noticed(part: str) -> None:
    search = make_search()
    advance(search, 10)
    other = reloaded(search)
    array = operator.attrgetter(part)(other._strategy)
    array *= 1 + 1e-9
    assert not np.array_equal(advance(search, 4), advance(other, 4))


def test_the_step_size_stays_above_its_floor() -> None:
    free, held = make_search(), make_search(min_sigma=0.4)
    sigmas = []
    for _ in range(60):
        for search in (free, held):
            advance(search, 1)
        sigmas.append(held.sigma)
    assert free.sigma < 0.2 and min(sigmas) == 0.4


def test_a_search_begins_anew_from_its_mean_as_often_as_it_may() -> None:
    search = make_search(restarts=1)
    advance(search, 60)
    mean, sigma = search.mean, search.sigma
    assert search.begin_anew() and sigma != 0.5
    assert np.array_equal(search.mean, mean) and search.sigma == 0.5
    other = reloaded(search, restarts=1)
    assert not other.begin_anew()
    assert np.array_equal(advance(search, 3), advance(other, 3))


def test_candidates_stay_until_they_are_told() -> None:
    search = make_search()
    first = search.ask().copy()
    assert np.array_equal(search.ask(), first)
    search.tell(bowl(first))
    assert not np.isclose(search.ask(), first).any()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_fitness_that_is_not_finite_is_refused_with_its_candidate(wrong: float) -> None:
    search, same = make_search(), make_search()
    advance(search, 2)
    advance(same, 2)
    fitness = bowl(search.ask())
    fitness[[5, 7]] = wrong
    with pytest.raises(RunFault, match=rf"candidate 5 of generation 2 .* {wrong}; 2 of 12"):
        search.tell(fitness)
    assert np.array_equal(advance(search, 2), advance(same, 2)), "nothing of it has been taken in"


class Harmful:
    """What a file of somebody else's could hold."""

    def __init__(self, call: object, *arguments: object) -> None:
        self.call = call, arguments

    def __reduce__(self) -> tuple:
        return self.call


def altered(state: dict, change: object) -> dict:
    """A saved search in which `change` has been at work on the nodes."""
    other = copy.deepcopy(state)
    change(other["graph"])
    return other


def attributes(nodes: list, name: str) -> dict:
    """Where in the nodes an attribute's value stands: (pair,) lists whose second item it is."""
    for node in nodes:
        for pair in node.get("attributes", []):
            if pair[0] == name:
                return pair
    raise AssertionError(name)


def test_a_pickle_is_not_read(tmp_path: os.PathLike) -> None:
    target = tmp_path / "harmed"
    data = pickle.dumps(Harmful(os.mkdir, str(target)))
    with pytest.raises(UserError, match="this is no saved search"):
        Search.from_state(settings_of(), torch.frombuffer(bytearray(data), dtype=torch.uint8))
    assert not target.exists()


def test_no_word_class_or_function_comes_from_a_file(tmp_path: os.PathLike) -> None:
    """pycma evaluates some words and writes to places that others name."""
    search = make_search()
    advance(search, 3)
    state = search.state()
    for change, message in (
        (lambda n: attributes(n, "sigma0").__setitem__(1, {"word": "__import__('os')"}), "sigma0 is a float"),
        (lambda n: attributes(n, "adapt_sigma").__setitem__(1, attributes(n, "sm")[1]), "adapt_sigma is a"),
        (lambda n: n[0].__setitem__("class", "os.system"), "what was saved is a os.system"),
        (lambda n: attributes(n, "integer_centering").__setitem__(1, {"node": 10**9}), "IndexError"),
        (lambda n: attributes(n, "sm").__setitem__(1, 5.0), "sm is a cma.sampler.GaussFullSampler"),
        (lambda n: attributes(n, "integer_centering").__setitem__(1, None), "integer_centering is a"),
        (lambda n: n.clear(), "this is no saved CMASearch"),
    ):
        with pytest.raises(UserError, match=message):
            Search.from_state(settings_of(), altered(state, change))
    kept = {key: value for key, value in make_search()._strategy.opts.items() if key != "randn"}
    found = Search.from_state(settings_of(), state)._strategy.opts
    assert repr({key: found[key] for key in kept}) == repr(kept), "options are those of the configuration"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(cma="4.0.0"), r"saved by pycma 4\.0\.0, here is .*install cma==4\.0\.0"),
        (lambda s: s.update(more=1), "this is no saved search: one has cma, parameters, graph"),
        (lambda s: s.pop("graph"), "this is no saved search"),
        (lambda s: s.update(parameters=-1), "parameters of a saved search must be a whole number"),
        (lambda s: s.update(parameters=5), r"mean has the shape \(8,\), not \(5,\)"),
        (lambda s: s.update(graph="rm -rf"), "does not fit its settings: this is no saved CMASearch"),
        (lambda s: s.update(graph=[{"kind": "left"}]), "does not fit its settings"),
    ],
)
def test_what_is_no_state_of_this_search_is_told(change: object, message: str) -> None:
    search = make_search()
    advance(search, 2)
    state = search.state()
    change(state)
    with pytest.raises(UserError, match=message):
        Search.from_state(settings_of(), state)


@pytest.mark.parametrize("more", [{"diagonal": True}, {"population": 10}])
def test_the_state_of_a_search_with_other_settings_is_told(more: dict) -> None:
    search = make_search()
    search.ask()
    with pytest.raises(UserError, match="the saved search does not fit its settings"):
        Search.from_state(settings_of(**more), search.state())


def test_a_covariance_or_a_generation_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "free_memory", lambda: 3 * 2**30)
    with pytest.raises(
        UserError, match=r"10,000 parameters takes about 7\.5 GiB, and 3\.0 GiB are free; say .*diagonal=true"
    ):
        make_search(10_000)
    assert make_search(10_000, diagonal=True).ask().shape == (12, 10_000)
    with pytest.raises(UserError, match=r"1,000,000 candidates with 913 .* free; lower algorithm.population"):
        make_search(913, population=1_000_000)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"population": 3}, "population must be a whole number from 4"),
        ({"generations": 0}, "generations must be a whole number of 1 or more"),
        ({"generations": 1.5}, "generations must be a whole number"),
        ({"shard_size": 0}, "shard_size must be auto or a whole number of 1 or more"),
        ({"shard_size": "all"}, "shard_size must be auto or a whole number"),
        ({"sigma0": 0}, "sigma0 must be a number above 0"),
        ({"sigma0": "much"}, "sigma0 must be a number above 0"),
        ({"start": "initail"}, "did you mean 'initial'"),
        ({"mirrored": True, "population": 9}, "makes pairs, but .* 9; take 10"),
    ],
)
def test_settings_that_cannot_be_meant_are_told(given: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CMAES(**given)


def test_counts_may_be_written_with_an_exponent() -> None:
    assert CMAES(generations=1e4).generations == 10_000
    assert not CMAES(validate_every=0).validates and not CMAES(validation_episodes=0).validates


def test_numpys_products_take_one_thread() -> None:
    library = ctypes.CDLL(np._core._multiarray_umath.__file__)
    if not hasattr(library, "scipy_openblas_get_num_threads64_"):
        pytest.skip("this NumPy brings no OpenBLAS of its own")
    before = library.scipy_openblas_get_num_threads64_()
    library.scipy_openblas_set_num_threads64_(2)
    threads_for_numpy(1)
    assert library.scipy_openblas_get_num_threads64_() == 1
    library.scipy_openblas_set_num_threads64_(before)
