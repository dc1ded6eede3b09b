"""Cross-validation over bodies: policies on the bodies that they did not see, beside one that saw all.

How fast a body can be, and which ones a split holds out by chance, say more of a return than the agent does.
So every body is unseen once, and what counts is the ratio to a policy that was trained on all of them.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console

from ...envs.errors import UserError
from ...envs.task_set import task_set_of
from ..device import thread_limit
from ..storage.policy import load_policy
from .evaluate import run_missing
from .plan import EpisodeStore, chunks_of
from .references import specialists_in
from .report import records
from .runs import trained_on
from .statistics import Estimate, mean_difference, mean_of_ratios, paired, ratio_of_sums
from .suites import undisturbed
from .tables import interval, markdown, number, terminal_table

log = logging.getLogger(__name__)

SCHEMA = "somite-cross-validation/1"  # of results.json; docs/evaluation.md describes it
TABLE_WIDTH = 160  # of the printed table at least: intervals in pieces cannot be read
SEED = 1000  # of the starts, as in conf/evaluate.yaml
UNSEEN, SEEN, JOINT = "unseen", "seen", "joint"  # what a policy is to a body
HOW_TO_READ = (
    "*Unseen* are policies that held a body out, *seen* those that held out others. *Joint* is the same "
    "agent trained on all of them, from the same seeds and tried from the same starts. Ratios are of sums "
    "over bodies; in brackets are 95 % intervals by a paired bootstrap over bodies, and over training seeds "
    "if there are several: each resample has the same bodies above and below. One seed says nothing of other "
    "seeds. The means of the bodies' own ratios are in results.json (`…_mean`): a slow body may dominate "
    "them, and they are null where a body's denominator is not above zero."
)


@dataclass(frozen=True)
class Trained:
    """A policy of an arm.

    Attributes:
        arm: name of the settings that it was trained with.
        run: which of the arm's training runs it belongs to, such as its seed.
        folder: of the policy.
        held_out: bodies that it must not have seen; empty: it is the joint policy.
    """

    arm: str
    run: str
    folder: Path
    held_out: tuple[str, ...]


def cross_validate(
    trained: Sequence[Trained],
    environment: Mapping[str, Any],
    output: Path,
    reference: str | None,
    episodes: int,
    device: torch.device,
    workers: int,
) -> pd.DataFrame:
    """Evaluate policies as far as they have not been, write the report and print its table.

    Args:
        trained: the policies.
        environment: with all bodies, in which every policy is tried; what disturbs in it is left out.
        output: folder of ``report.md``, ``results.json``, ``results.csv`` and ``episodes.jsonl``.
        reference: the arm that the others are compared with; None: none.
        episodes: of each body.
        device: of the policies.
        workers: processes.

    Returns:
        A row for each arm, as of `by_arm`.

    Raises:
        UserError: a policy has seen a body that is held out for it, or a joint one has not seen all.
    """
    environment = undisturbed(environment)
    store = EpisodeStore(output / "episodes.jsonl")
    returns = _returns(trained, environment, episodes, store, device, workers)
    specialists = specialists_in(environment)
    bodies, arms = by_body(returns, specialists), by_arm(returns, specialists, reference)
    bodies.to_csv(output / "results.csv", index=False)
    policies = [
        {"arm": t.arm, "run": t.run, "policy": os.path.relpath(t.folder, output), "held_out": t.held_out}
        for t in trained
    ]
    values = {"schema": SCHEMA, "seed": SEED, "episodes": episodes, "reference": reference}
    values |= {"policies": policies, "arms": records(arms), "bodies": records(bodies)}
    (output / "results.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    text = ["# Cross-validation over bodies", "", markdown(arms_table(arms, reference)), "", HOW_TO_READ]
    text += ["", "## Bodies", "", markdown(bodies_table(bodies)), ""]
    (output / "report.md").write_text("\n".join(text), encoding="utf-8")
    shown = terminal_table("cross-validation over bodies", arms_table(arms, reference), 2)
    Console(width=max(TABLE_WIDTH, Console().width)).print(shown)
    log.info("report: %s", output / "report.md")
    return arms


def _returns(
    trained: Sequence[Trained],
    environment: Mapping[str, Any],
    episodes: int,
    store: EpisodeStore,
    device: torch.device,
    workers: int,
) -> pd.DataFrame:
    """A row for each policy, body and episode: ``arm``, ``run``, ``role``, ``body``, ``episode``, ``return``.

    Random actions have the role ``random`` and no arm.
    """
    task = task_set_of(environment).for_evaluation()
    plans: list[tuple[str, str, dict[str, str], Any]] = []
    for one in trained:
        agent = load_policy(one.folder)
        roles = _roles(one, trained_on(agent, task), task.seen)
        options = agent, tuple(roles), episodes, SEED, device.type
        plans.append((one.arm, one.run, roles, chunks_of(one.folder, environment, *options)))
        if len(plans) == 1:
            everything = dict.fromkeys(task.seen, "random")
            options = agent, task.seen, episodes, SEED, device.type
            plans.append(("", "", everything, chunks_of(None, environment, *options)))
    chunks = [chunk for *_, own in plans for chunk in own]
    run_missing(chunks, store, device, workers, thread_limit("auto") if workers == 1 else 1)
    parts = []
    for arm, run, roles, own in plans:
        for chunk in own:
            for body, found in store[chunk.key].items():
                columns = {"arm": arm, "run": run, "role": roles[body], "body": body}
                numbers = range(chunk.first, chunk.first + chunk.episodes)
                parts.append(pd.DataFrame(columns | {"episode": numbers, "return": found["returns"]}))
    return pd.concat(parts, ignore_index=True)


def _roles(one: Trained, saw: frozenset[str], names: Sequence[str]) -> dict[str, str]:
    """What a policy is to each of the bodies that it is tried on. Raises UserError: not what it is to be."""
    leaked, lacking = saw & set(one.held_out), [name for name in names if name not in saw]
    if leaked:
        raise UserError(
            f"{one.folder} was trained on {', '.join(sorted(leaked))}: as {one.arm} it must not have seen "
            "what it is tried on"
        )
    if not one.held_out:
        if lacking:
            raise UserError(f"{one.folder} is to have seen all bodies, but not {', '.join(lacking)}")
        return dict.fromkeys(names, JOINT)
    roles = {name: UNSEEN if name in one.held_out else SEEN for name in names}
    return {name: role for name, role in roles.items() if role == UNSEEN or name in saw}


def by_body(returns: pd.DataFrame, specialists: Mapping[str, float]) -> pd.DataFrame:
    """One row for each arm and body: its mean ``unseen``, ``seen`` and ``joint`` returns, and ratios.

    Intervals are paired over episodes, and over training runs where there are several.
    """
    random = returns[returns["role"] == "random"].groupby("body")["return"].mean()
    rows = []
    for (arm, body), own in returns[returns["role"] != "random"].groupby(["arm", "body"], sort=False):
        unseen, seen, joint = (_matrix(own[own["role"] == role], "episode") for role in (UNSEEN, SEEN, JOINT))
        row: dict[str, Any] = {"arm": arm, "body": body, "runs": own["run"].nunique()}
        row |= {role: _mean(table) for role, table in ((UNSEEN, unseen), (SEEN, seen), (JOINT, joint))}
        row |= {"specialist": specialists.get(body, np.nan), "random": random.get(body, np.nan)}
        row |= _over(unseen, joint, ratio_of_sums).columns("unseen/joint")
        scale = pd.DataFrame(row["specialist"], index=[0], columns=unseen.columns)
        row |= _over(unseen, scale, ratio_of_sums).columns("unseen/specialist")
        rows.append(row)
    return pd.DataFrame(rows)


def by_arm(returns: pd.DataFrame, specialists: Mapping[str, float], reference: str | None) -> pd.DataFrame:
    """One row for each arm, over its bodies.

    ``runs``, ``bodies``; mean ``unseen``, ``seen`` and ``joint`` return; and, each with ``_low``, ``_high``
    and ``_mean`` (the mean of the bodies' own ratios): ``seen/joint``, ``unseen/joint``,
    ``unseen/specialist``, and against the arm ``reference``: ``unseen/reference_joint``,
    ``unseen/reference_unseen`` and, without a mean, ``difference`` of the unseen returns.
    """
    own = {arm: group for arm, group in returns[returns["role"] != "random"].groupby("arm", sort=False)}
    tables = {
        arm: {role: _matrix(group[group["role"] == role], "body") for role in (UNSEEN, SEEN, JOINT)}
        for arm, group in own.items()
    }
    theirs, rows = tables.get(reference), []
    for arm, mine in tables.items():
        unseen = mine[UNSEEN]
        row: dict[str, Any] = {"arm": arm, "runs": len(unseen), "bodies": unseen.shape[1]}
        row |= {role: _mean(table) for role, table in mine.items()}
        known = {body: value for body, value in specialists.items() if body in unseen}
        pairs = {
            "seen/joint": (mine[SEEN], mine[JOINT]),
            "unseen/joint": (unseen, mine[JOINT]),
            "unseen/specialist": (unseen, pd.DataFrame([known])),
        }
        if theirs is not None:
            pairs |= {f"unseen/reference_{role}": (unseen, theirs[role]) for role in (JOINT, UNSEEN)}
            row |= _over(unseen, theirs[UNSEEN], mean_difference).columns("difference")
        for name, pair in pairs.items():
            row |= _over(*pair, ratio_of_sums).columns(name)
            row[f"{name}_mean"] = float(_over(*pair, mean_of_ratios).value)
        rows.append(row)
    return pd.DataFrame(rows)


def _matrix(rows: pd.DataFrame, columns: str) -> pd.DataFrame:
    """Mean returns (runs, bodies or episodes), of the runs that have most of them."""
    table = rows.pivot_table("return", "run", columns, sort=False)
    counts = table.notna().sum(axis=1)
    return table[counts == counts.max()].dropna(axis=1)


def _over(own: pd.DataFrame, other: pd.DataFrame, statistic: Any) -> Estimate:
    """A paired statistic of two tables on the columns that both have; NaN if they share none.

    It takes the runs that both have, such as those of the same seeds, or all runs if they share none.
    """
    shared = [column for column in own if column in other]
    if not shared:
        return Estimate(np.nan, np.nan, np.nan)
    runs = [run for run in own.index if run in other.index]
    tables = (table.loc[runs or table.index, shared].to_numpy(float) for table in (own, other))
    return paired(statistic, *tables)


def _mean(table: pd.DataFrame) -> float:
    return float(table.to_numpy().mean()) if table.size else np.nan


def arms_table(arms: pd.DataFrame, reference: str | None) -> pd.DataFrame:
    """Rows of `by_arm` as text."""
    names = {name: name for name in ("seen/joint", "unseen/joint")}
    if reference is not None:
        names["unseen/reference_joint"] = f"unseen/joint of {reference}"
        names["unseen/reference_unseen"] = f"unseen/unseen of {reference}"
    names["unseen/specialist"] = "unseen/specialist"
    lines = []
    for _, row in arms.iterrows():
        line = {"arm": row["arm"], "seeds × bodies": f"{row['runs']} × {row['bodies']}"}
        line |= {told: interval(row, name) for name, told in names.items()}
        line["unseen return"] = number(row[UNSEEN])
        if reference is not None:
            line[f"less that of {reference}"] = interval(row, "difference")
        lines.append(line)
    return pd.DataFrame(lines)


def bodies_table(bodies: pd.DataFrame) -> pd.DataFrame:
    """Rows of `by_body` as text."""
    lines = []
    for _, row in bodies.iterrows():
        line = {"body": row["body"], "arm": row["arm"]}
        line |= {name: number(row[name]) for name in (UNSEEN, SEEN, JOINT, "specialist", "random")}
        line |= {name: interval(row, name) for name in ("unseen/joint", "unseen/specialist")}
        lines.append(line)
    return pd.DataFrame(lines)
