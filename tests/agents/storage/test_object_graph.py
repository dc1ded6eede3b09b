"""Numbers of object graphs, taken out and written into others that were built alike."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch

from somite.agents.storage.training_state import Misfit, put_graph, take_graph


class Part:
    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.rng, self.values = rng, rng.standard_normal((3, 4))
        self.shared = self.values
        self.by_columns = np.asfortranarray(rng.standard_normal((3, 4)))
        self.strided = self.values[:, ::2]
        self.number, self.count, self.name = np.float64(rng.random()), seed, "part"
        self.items = {(1, 2.5): [1.0, None, True], 7: (np.int64(seed), {"deep": self.values})}
        self.function, self.parent = len, self


def rebuilt(part: Part) -> Part:
    """Another part after the numbers of this one have been in a file."""
    file = io.BytesIO()
    torch.save(take_graph(part), file)
    file.seek(0)
    other = Part(99)
    put_graph(other, torch.load(file, weights_only=True))
    return other


def test_numbers_orders_types_and_sharing_come_back() -> None:
    part = Part(3)
    part.rng.random(5)
    other = rebuilt(part)
    for name in ("values", "by_columns", "strided"):
        assert np.array_equal(getattr(part, name), getattr(other, name))
    assert other.by_columns.flags.f_contiguous and not other.by_columns.flags.c_contiguous
    assert other.shared is other.values and other.items[7][1]["deep"] is other.values
    assert type(other.number) is np.float64 and other.number == part.number
    assert list(other.items) == [(1, 2.5), 7] and other.items[1, 2.5] == [1.0, None, True]
    assert type(other.items[7][0]) is np.int64 and other.items[7][0] == 3
    assert other.parent is other and other.function is len
    assert part.rng.random() == other.rng.random()


def test_lists_and_dictionaries_may_have_grown_and_attributes_may_be_new() -> None:
    part = Part(0)
    part.items[1, 2.5] += [2.0] * 5
    part.items["more"] = {"x": np.arange(3)}
    part.later = [np.ones(2)]
    other = rebuilt(part)
    assert other.items[1, 2.5][3:] == [2.0] * 5 and np.array_equal(other.items["more"]["x"], [0, 1, 2])
    assert np.array_equal(other.later[0], [1, 1])


def test_what_is_left_out_stays_as_it_is() -> None:
    part, other = Part(1), Part(2)
    before = other.items
    put_graph(other, take_graph(part, [part.items]))
    assert other.items is before and np.array_equal(other.values, part.values)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("name", "other", "Part.name is a str, but what was saved is 'other'"),
        ("name", 5.0, None),
        ("count", "words", "Part.count is a int, but what was saved is 'words'"),
        ("function", 1.0, "Part.function is a builtin_function_or_method, but .* a number"),
        ("rng", np.zeros(3), "Part.rng is a numpy.random._generator.Generator, but .* an array"),
        ("values", Part(0), "Part.values is a ndarray|Part.values is a numpy.ndarray"),
        ("parent", [1.0], "Part.parent is a .*Part, but what was saved is a list"),
    ],
)
def test_nothing_but_numbers_takes_the_place_of_anything(name: str, value: Any, message: str | None) -> None:
    part = Part(0)
    setattr(part, name, value)
    nodes = take_graph(part)
    if message is None:  # a number where a word was is none of a word's business
        put_graph(Part(1), nodes)
    else:
        with pytest.raises(Misfit, match=message):
            put_graph(Part(1), nodes)


@pytest.mark.parametrize("nodes", [[], None, 5, "x", [{}], [{"kind": "array"}], [{"kind": "object"}], [[1]]])
def test_what_are_no_nodes_is_told(nodes: Any) -> None:
    with pytest.raises(Misfit):
        put_graph(Part(0), nodes)
