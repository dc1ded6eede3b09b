"""The page of results: figures from reports, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from somite.agents.evaluation.cross_validation import SCHEMA as FOLDS_SCHEMA
from somite.agents.evaluation.report import SCHEMA
from somite.agents.evaluation.results_page import write_results
from somite.envs.errors import UserError

ROOT = Path(__file__).parents[3]
ABSOLUTE = re.compile(r"""[="'\[,]/\w+/""")  # the value of a saved argument, or one of a list
ROW = {
    "agent": "SMP", "suite": "permutation", "condition": "shuffled", "runs": 3, "mean": 471.25,
    "mean_low": 400.0, "mean_high": 500.5, "deviation": 12.5,
}  # fmt: skip


def page(folder: Path, **changes: object) -> str:
    (folder / "results.json").write_text(json.dumps({"schema": SCHEMA, "agents": [ROW]}))
    section = {
        "title": "Swing-up",
        "report": "results.json",
        "command": "somite-evaluate run=x",
        "measure": "mean return",
        "conditions": {"shuffled": "permutation/shuffled"},
        "published": [{"agent": "theirs", "shuffled": "472 ± 426"}],
    }
    table = {"sections": [section | changes], "not_run": [{"what": "hopper", "command": "somite-train"}]}
    OmegaConf.save(OmegaConf.create(table), folder / "table.yaml")
    write_results(folder / "table.yaml", folder / "page.md")
    return (folder / "page.md").read_text()


def test_figures_are_those_of_the_report(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert "| SMP (3 runs) " in text and "471 [400, 500]" in text
    assert "theirs, published" in text and "472 ± 426" in text and "| hopper" in text
    assert "471 ± 12.5" in page(tmp_path, value="deviation")


def test_arms_of_a_cross_validation_have_a_row_each(tmp_path: Path) -> None:
    arm = {"arm": "wide", "runs": 1, "unseen/joint": 0.5, "unseen/joint_low": 0.25, "unseen/joint_high": 0.75}
    (tmp_path / "folds.json").write_text(json.dumps({"schema": FOLDS_SCHEMA, "arms": [arm]}))
    text = page(tmp_path, cross_validation="folds.json", columns={"of joint": "unseen/joint"})
    assert re.search(r"\| wide \(1 run\) .* 0.50 \[0.25, 0.75\] \|", text)
    with pytest.raises(UserError, match="has the schema 'somite-report"):
        page(tmp_path, cross_validation="results.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"report": "resluts.json"},
            "no report .*resluts.json; somite-evaluate suite=... output=... writes it",
        ),
        ({"conditions": {"x": "permutation/shufled"}}, "did you mean 'permutation/shuffled'"),
        ({"agents": ["SMPP"]}, "no report has an agent 'SMPP'; did you mean 'SMP'"),
    ],
)
def test_what_no_report_has_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        page(tmp_path, **changes)


def test_the_page_in_the_repository_is_what_the_command_writes(tmp_path: Path) -> None:
    write_results(ROOT / "docs" / "results" / "results.yaml", tmp_path / "RESULTS.md")
    assert (tmp_path / "RESULTS.md").read_text() == (ROOT / "RESULTS.md").read_text()


def test_what_is_kept_holds_no_path_of_one_machine() -> None:
    kept = [*(ROOT / "docs/results").rglob("*.json"), *(ROOT / "agents/bundled").rglob("*.json")]
    assert kept
    typed = [str(path.relative_to(ROOT)) for path in kept if ABSOLUTE.search(path.read_text())]
    assert not typed, "saved commands with absolute paths"
