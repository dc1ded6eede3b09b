"""Trees as tensors: the schedule and the relations, against plain walks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somite.agents.policies.limb_policy import depths, relations, schedule
from tests.observations import random_observation

few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def _ancestors(parent: list[int], limb: int) -> list[int]:
    """The limb itself, its parent, and so on up to the root."""
    path = [limb]
    while parent[path[-1]] >= 0:
        path.append(parent[path[-1]])
    return path


@few
@given(seed=seeds)
def test_every_limb_has_one_slot_and_children_stand_below_their_parent(seed: int) -> None:
    observation = random_observation(seed, n_tokens=7, max_roots=3)
    plan = schedule(observation["parent"], observation["mask"])
    place, child = plan["tree_place"], plan["tree_child"]
    width = child.shape[-1]
    assert place.shape[1] == (child.shape[1] + 1) * width
    assert torch.equal(place.sum(1), observation["mask"].float())
    assert place.sum(2).max() == 1
    for body in range(4):
        parent = observation["parent"][body].tolist()
        slot = place[body].argmax(0).tolist()
        links = 0
        for limb in observation["mask"][body].nonzero().flatten().tolist():
            level, position = divmod(slot[limb], width)
            assert level == len(_ancestors(parent, limb)) - 1
            if parent[limb] >= 0:
                above, parents_position = divmod(slot[parent[limb]], width)
                assert above == level - 1 and child[body, above, parents_position, position] == 1
                links += 1
        assert child[body].sum() == links


@few
@given(seed=seeds)
def test_relations_are_the_steps_up_and_down(seed: int) -> None:
    limit = 3
    observation = random_observation(seed, n_tokens=7)
    depth, relation = relations(observation["parent"], observation["mask"], limit)
    for body in range(4):
        parent, exists = observation["parent"][body].tolist(), observation["mask"][body].tolist()
        for i in range(7):
            mine = _ancestors(parent, i)
            if exists[i]:
                assert depth[body, i] == min(len(mine) - 1, limit)
            for j in range(7):
                other = _ancestors(parent, j)
                common = [limb for limb in mine if limb in other]
                expected = (limit + 1) ** 2
                if exists[i] and exists[j] and common:
                    up, down = mine.index(common[0]), other.index(common[0])
                    expected = min(up, limit) + (limit + 1) * min(down, limit)
                assert relation[body, i, j] == expected


def test_a_long_chain_reaches_all_its_ancestors() -> None:
    parent = torch.arange(-1, 32).unsqueeze(0)
    depth, relation = relations(parent, torch.ones(1, 33), 40)
    assert depth[0].tolist() == list(range(33))
    assert relation[0, 32, 0] == 32


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        ([-1, 0, 3, 2, 0], "cycle"),
        ([-1, 0, 2, 2, 0], "cycle"),
        ([-1, 0, 1, 7, 0], "existing limb"),
        ([-1, 0, 1, -2, 0], "existing limb"),
        ([-1, 0, 1, 4, 0], "existing limb"),
    ],
)
def test_what_is_no_tree_is_refused(parent: list[int], message: str) -> None:
    good = [-1, 0, 1, 2, -1]
    mask = torch.tensor([[1, 1, 1, 1, 0]] * 2)
    with pytest.raises(ValueError, match=message) as error:
        schedule(torch.tensor([good, parent]), mask)
    assert "body [1]" in str(error.value) and str(parent) in str(error.value)


def test_depths_of_padding_are_minus_one() -> None:
    depth = depths(torch.tensor([[2, -1, -1, 5]]), torch.tensor([[1, 0, 1, 0]]))
    assert depth.tolist() == [[1, -1, 0, -1]]
