"""Pages of curves: each chart of a run draws something that the run logs, and all that is documented."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tensorboard.plugins.custom_scalar import layout_pb2

from somite.agents.training.loop import Run
from tests.agents.algorithms.test_clone_run import make_clone, teacher
from tests.agents.runs import ROLLOUT, read_metrics

from .runs import SUITE, events_of, limb_run

__all__ = ["teacher"]
DOCUMENTED = (Path(__file__).parents[4] / "docs" / "scalars.md").read_text()


def charts_of(folder: Path) -> dict[str, dict[str, list[str]]]:
    """By page and title the scalars that a chart shows, as TensorBoard reads them from the event file."""
    (event,) = events_of(folder).Tensors("custom_scalars__config__")
    read = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    return {
        page.title: {
            chart.title: list(chart.multiline.tag)
            or [chart.margin.series[0].value, chart.margin.series[0].lower, chart.margin.series[0].upper]
            for chart in page.chart
        }
        for page in read.category
    }


def empty_charts(run: Run) -> list[str]:
    """Charts of a run, or single curves of them, to which it logged nothing."""
    logged = events_of(run.folder).Tags()["scalars"]
    return [
        f"{page}/{title}: {pattern}"
        for page, charts in charts_of(run.folder).items()
        for title, patterns in charts.items()
        for pattern in patterns
        if not any(re.match(pattern, name) for name in logged)
    ]


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Run:
    settings = ("algorithm.validate_every=2048", "algorithm.validation_episodes=2", "agent.identify=0.1")
    tried = ("algorithm.zero_shot_every=2048", *SUITE)
    run = make_clone(tmp_path_factory.mktemp("dashboard") / "cloned", teacher, *settings, *tried)
    run.learn()
    return run


def test_a_run_of_limbs_has_every_page_and_no_empty_chart(limbs: Run) -> None:
    assert list(charts_of(limbs.folder)) == ["Training", "Bodies", "Zero-shot", "Speed"]
    assert "All bodies: mean, worst, best" in charts_of(limbs.folder)["Bodies"]
    assert empty_charts(limbs) == []


def test_a_run_of_cma_es_has_its_own_charts(evolved: Run) -> None:
    pages = charts_of(evolved.folder)
    assert list(pages) == ["Training", "Bodies", "Zero-shot", "Speed"]
    assert "Step size of the search" in pages["Training"] and "Loss of the critic" not in pages["Training"]
    assert empty_charts(evolved) == []


def test_a_run_of_cloning_has_its_own_charts(cloned: Run) -> None:
    pages = charts_of(cloned.folder)
    assert list(pages) == ["Training", "Bodies", "Zero-shot", "Speed"]
    assert "Which sensor is which: loss" in pages["Training"]
    assert empty_charts(cloned) == []


def test_everything_logged_is_on_a_page_or_a_setting(limbs: Run, evolved: Run, cloned: Run) -> None:
    left_out = {"train/clip_range", "train/n_updates", "train/loss", "cma/generation"}
    for run in (limbs, evolved, cloned):
        shown = [p for charts in charts_of(run.folder).values() for ps in charts.values() for p in ps]
        names = set(events_of(run.folder).Tags()["scalars"]) - left_out
        assert [name for name in names if not any(re.match(pattern, name) for pattern in shown)] == []


def test_every_scalar_of_the_suite_is_documented(limbs: Run, evolved: Run) -> None:
    for run in (limbs, evolved):
        for name in read_metrics(run.folder)[-1]:
            if name.startswith("zero_shot/"):
                condition = name.removeprefix("zero_shot/")
                assert f"`{name}`" in DOCUMENTED or f"`{condition}`" in DOCUMENTED, name


def test_a_run_too_short_for_the_suite_has_no_page_of_it(tmp_path: Path) -> None:
    run = limb_run(tmp_path, f"algorithm.zero_shot_every={4 * ROLLOUT}", "algorithm.validate_every=0")
    run.learn()
    assert list(charts_of(tmp_path)) == ["Training", "Bodies", "Speed"]
    assert not [name for name in events_of(tmp_path).Tags()["scalars"] if "zero_shot" in name]


def test_a_resumed_run_keeps_its_pages(limbs: Run, tmp_path: Path) -> None:
    shutil.copytree(limbs.folder, tmp_path, dirs_exist_ok=True)
    before = charts_of(tmp_path)
    limb_run(tmp_path, f"algorithm.total_steps={4 * ROLLOUT}").learn()
    events = events_of(tmp_path)
    assert [event.step for event in events.Scalars("zero_shot/mean")][-1] == 4 * ROLLOUT
    read = [layout_pb2.Layout.FromString(e.tensor_proto.string_val[0])
            for e in events.Tensors("custom_scalars__config__")]  # fmt: skip
    assert len(read) == 2 and read[0] == read[1] and len(before) == 4


def test_charts_of_one_title_are_the_same_in_all_runs(limbs: Run, evolved: Run, cloned: Run) -> None:
    """TensorBoard merges pages by title and charts that are equal: no title may stand for two charts."""
    found: dict[str, list[str]] = {}
    for run in (limbs, evolved, cloned):
        for charts in charts_of(run.folder).values():
            for title, scalars in charts.items():
                assert found.setdefault(title, scalars) == scalars
