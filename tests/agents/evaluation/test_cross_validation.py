"""Policies on what they did not see, beside one that saw it: roles, ratios, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from somite.agents.evaluation.cross_validation import Trained, arms_table, by_arm, by_body, cross_validate
from somite.envs.errors import UserError
from tests.agents.evaluation.conftest import CHEETAHS

BACK, FRONT = "cheetah_2_back", "cheetah_3_front"
ALL = CHEETAHS | {"split": "all", "bodies": [BACK, FRONT]}


@pytest.fixture
def folds(make_agent: Callable[..., Path]) -> list[Trained]:
    """Of two bodies, each held out once."""
    made = {
        name: make_agent("limbs", seed, f"{name}", split="all", bodies=bodies) / "policy"
        for seed, (name, bodies) in enumerate(
            {"saw_back": [BACK], "saw_front": [FRONT], "saw_both": [BACK, FRONT]}.items()
        )
    }
    return [
        Trained("base", "0", made["saw_back"], (FRONT,)),
        Trained("base", "0", made["saw_front"], (BACK,)),
        Trained("base", "0", made["saw_both"], ()),
    ]


def run(trained: list[Trained], output: Path = Path("out"), reference: str | None = None) -> pd.DataFrame:
    return cross_validate(trained, ALL, output, reference, 3, torch.device("cpu"), 1)


def test_every_policy_is_tried_on_what_it_is_to_the_bodies(
    folds: list[Trained], capsys: pytest.CaptureFixture[str]
) -> None:
    (arm,) = run(folds).to_dict("records")
    assert (arm["arm"], arm["runs"], arm["bodies"]) == ("base", 1, 2)
    bodies = {row["body"]: row for row in json.loads(Path("out/results.json").read_text())["bodies"]}
    assert set(bodies) == {BACK, FRONT}
    for name in ("unseen", "seen", "joint"):
        assert arm[name] == pytest.approx(np.mean([row[name] for row in bodies.values()]))
    assert len({row[name] for row in bodies.values() for name in ("unseen", "seen", "joint")}) == 6
    assert "cross-validation" in capsys.readouterr().out and "| base" in Path("out/report.md").read_text()
    before = Path("out/episodes.jsonl").read_bytes()
    other = Trained("other", "x", folds[0].folder, (FRONT,))  # another arm's policy: tried once
    arms = run([*folds, other], reference="base")
    assert list(arms["arm"]) == ["base", "other"] and Path("out/episodes.jsonl").read_bytes() == before
    assert arms["difference"].tolist() == [0, 0] and arms["difference_low"][0] == 0


def test_what_was_seen_by_identity_is_not_unseen(folds: list[Trained]) -> None:
    with pytest.raises(UserError, match=f"was trained on {BACK}: as leak"):
        run([*folds, Trained("leak", "0", folds[0].folder, (BACK, FRONT))])
    with pytest.raises(UserError, match=f"have seen all bodies, but not {FRONT}"):
        run([*folds[:2], Trained("base", "0", folds[0].folder, ())])


def returns_of(**tables: np.ndarray) -> pd.DataFrame:
    """Rows of ``<arm>_<role>`` tables (runs, bodies), two episodes of each, 1 beside their mean."""
    rows = []
    for name, table in tables.items():
        arm, _, role = name.partition("_")
        for (run, body), value in np.ndenumerate(table):
            one = {"arm": arm, "run": str(run), "role": role, "body": f"b{body}"}
            rows += [one | {"episode": i, "return": value + (-1) ** i} for i in range(2)]
    return pd.DataFrame(rows)


def test_an_arm_is_measured_by_its_joint_policy_and_by_the_references() -> None:
    joint = np.array([[100.0, 300.0], [300.0, 500.0]])
    returns = returns_of(
        a_unseen=joint / 2, a_joint=joint, a_seen=joint * 0.9, b_unseen=joint[:1] / 4, b_joint=joint[:1] / 2
    )
    arms = by_arm(returns, {"b0": 1000.0, "b1": 500.0}, "a").set_index("arm")
    assert arms.loc["a", ["unseen/joint", "unseen/joint_low", "unseen/joint_high"]].tolist() == [0.5] * 3
    assert arms.loc["a", "seen/joint"] == pytest.approx(0.9)
    assert arms.loc["b", "unseen/joint"] == 0.5 and np.isnan(arms.loc["b", "seen/joint"])
    # Of the seed that both have.
    assert arms.loc["b", "unseen/reference_joint"] == pytest.approx((25 + 75) / (100 + 300))
    assert arms.loc["a", "unseen/specialist"] == pytest.approx((100 + 200) / 1500)
    assert arms.loc["a", "unseen/specialist_mean"] == pytest.approx((0.1 + 0.4) / 2)
    assert arms.loc["b", "difference"] == pytest.approx((25 + 75 - 50 - 150) / 2)
    assert arms_table(arms.reset_index(), "a").iloc[0]["unseen/joint"] == "0.50 [0.50, 0.50]"
    row = by_body(returns, {}).iloc[0]
    assert (row["unseen"], row["joint"], row["unseen/joint"]) == (100, 200, 0.5)
    assert row["unseen/joint_low"] < 0.5 < row["unseen/joint_high"], "over the episodes"


def test_a_ratio_is_of_the_same_seeds() -> None:
    joint = np.array([[100.0, 200.0], [500.0, 600.0]])
    returns = returns_of(a_unseen=joint[:1] / 2, a_joint=joint)  # the second seed's folds are not finished
    for rows in (by_arm(returns, {}, None), by_body(returns, {})):
        assert rows["unseen/joint"].tolist() == pytest.approx([0.5] * len(rows))


def test_seeds_that_are_not_complete_are_left_out() -> None:
    whole = returns_of(a_unseen=np.array([[10.0, 20.0]]), a_joint=np.array([[10.0, 40.0]]))
    part = returns_of(a_unseen=np.array([[99.0]])).assign(run="1")
    (arm,) = by_arm(pd.concat([whole, part]), {}, None).to_dict("records")
    assert (arm["runs"], arm["bodies"], arm["unseen"], arm["unseen/joint"]) == (1, 2, 15, 0.6)
