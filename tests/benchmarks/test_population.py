"""The benchmark of populations: its rivals do the same, and its report says what was done."""

import pytest
import torch

from somite.agents.rollout.population import Population
from somite.scripts.benchmarks.population import (
    SEED,
    PlainCart,
    PlainNeuron,
    draw,
    first_states,
    swingup,
)
from tests.benchmarks.conftest import measured

TINY = (
    "candidates=4",
    "episodes=2",
    "steps=30",
    "candidates_alone=2",
    "episodes_alone=3",
    "ant_candidates=2",
    "ant_episodes=1",
    "rounds=2",
    "ant_steps=5",
    "agent.width=8",
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A whole run with a tiny budget."""
    return measured(tmp_path_factory.mktemp("benchmark"), "population", *TINY)[1]


def test_every_rival_has_a_row(rows):
    ours, alone = {"1_core", "all_cores"}, {"one_candidate", "one_episode"}
    wanted = {f"{kind}/{name}" for kind in ("learnt", "new") for name in ours | alone}
    wanted |= {f"ant/{name}" for name in (*ours, "one_candidate")}
    assert set(rows) | {"learnt/all_cores", "new/all_cores", "ant/all_cores"} == wanted
    for name, row in rows.items():
        kind, _, who = name.partition("/")
        assert len(row["rounds"]) == 2
        rivals = alone - ({"one_episode"} if kind == "ant" else set())
        assert set(row["ratios"]) == ({f"{kind}/{rival}" for rival in rivals} if who in ours else set())
        for rate, steps, seconds in zip(row["rounds"], row["steps"], row["seconds"], strict=True):
            assert rate == pytest.approx(steps / seconds)


def test_steps_of_episodes_that_run_are_counted_and_no_others(rows):
    assert rows["learnt/1_core"]["steps"] == [4 * 2 * 30] * 2
    assert rows["learnt/one_candidate"]["steps"] == [2 * 2 * 30] * 2
    assert rows["learnt/one_episode"]["steps"] == [3 * 30] * 2
    # The four candidates are those of the two rounds of two.
    assert rows["new/1_core"]["steps"][0] == sum(rows["new/one_candidate"]["steps"]) < 4 * 2 * 30
    assert rows["ant/1_core"]["steps"] == [2 * 5] * 2


def test_the_plain_loop_is_the_same_agent_in_the_same_task():
    torch.set_num_threads(1)
    (policy, task), starts = swingup(60), first_states(4)
    drawn = draw(policy, 3, 0.5)
    population = Population(policy, task, 3, 4)
    scores = population.evaluate(drawn, [[SEED, i] for i in range(4)])
    population.close()
    for candidate, values in enumerate(drawn):
        plain = PlainNeuron(values)
        for episode in range(4):
            found = plain.run(PlainCart(starts[episode]), 60)
            assert found[0] == pytest.approx(scores.returns[candidate, 0, episode], rel=1e-3, abs=1e-3)
            assert found[1] == scores.lengths[candidate, 0, episode]
    assert (scores.lengths < 60).any() and (scores.lengths == 60).any()
