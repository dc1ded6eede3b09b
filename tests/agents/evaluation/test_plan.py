"""Episodes on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from somite.agents.evaluation.plan import EpisodeStore, key_of
from somite.envs.errors import UserError


def test_what_was_kept_is_found_again(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "new" / "episodes.jsonl")
    store.keep("a", {"x": {"returns": [1.5, -2.0]}})
    assert EpisodeStore(store.path)["a"]["x"]["returns"] == [1.5, -2.0]
    assert "b" not in EpisodeStore(store.path)


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_cut_line_is_done_again(tmp_path: Path, cut: int) -> None:
    store = EpisodeStore(tmp_path / "episodes.jsonl")
    store.keep("a", {"x": 1})
    store.keep("b", {"x": 2})
    content = store.path.read_bytes()
    store.path.write_bytes(content[:-cut])
    again = EpisodeStore(store.path)
    assert "a" in again and "b" not in again
    again.keep("b", {"x": 2})
    assert store.path.read_bytes() == content, "nothing of the cut line is left"


def test_a_damaged_line_is_named_and_nothing_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    path.write_text('{"key": "a", "bodies": {}}\n{"key": \n{"key": "b"}\n')
    with pytest.raises(UserError, match=r"episodes\.jsonl, line 2, is damaged .* move the file away"):
        EpisodeStore(path)
    assert path.read_text().count("\n") == 3


def test_a_key_knows_what_it_means() -> None:
    assert key_of({"a": 1, "b": [2, 3]}) == key_of({"b": [2, 3], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
