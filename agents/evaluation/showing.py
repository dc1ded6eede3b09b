"""What the report shows of the agents themselves: what they attend to, and videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...envs.locomotion.pictures.rendering import file_name
from ...envs.saved import task_set_of
from ...envs.task_set import TaskSet, with_changes
from ..agent import Agent
from ..show.filming import film_episode, to_film
from ..show.inside import looks_inside, record_inside
from ..show.inside_figures import attention_over_time, limb_graph
from ..storage.policy import load_policy
from .plan import AgentPlan

STEPS = 200
"""Of the episode that is looked into."""

SHUFFLE = {"senses": {"shuffle": STEPS // 2}}
"""So that one sees attention follow its sensors."""


def show_agents(plans: Sequence[AgentPlan], output: Path, seed: int, video: bool) -> list[str]:
    """Lines of the report with pictures of attention or messages and links to videos.

    Of several runs of one kind of agent the first is shown.

    Args:
        plans: of all runs.
        output: folder of the report.
        seed: of the episodes' starts.
        video: whether to film.
    """
    lines: list[str] = []
    for plan in {plan.agent: plan for plan in reversed(plans)}.values():
        agent = load_policy(plan.folder)
        environment = plan.trials[0].environment
        shown = []
        if looks_inside(agent.policy):
            shown += _inside(agent, environment, plan, output, seed)
        if video:
            shown += _videos(agent, task_set_of(environment).for_evaluation(), plan, output, seed)
        if shown:
            lines = ["", f"### {plan.run}", "", *shown, *lines]
    return ["", "## Inside the agents", *lines] if lines else []


def _inside(agent: Agent, environment: dict, plan: AgentPlan, output: Path, seed: int) -> list[str]:
    changed = with_changes(environment, SHUFFLE) if "senses" in environment else environment
    task = task_set_of(changed).for_evaluation()
    body = (task.unseen or task.seen)[0]
    agent.reset()
    record = record_inside(agent, task, body, seed, STEPS)
    figure = limb_graph(record) if plan.kind == "limbs" else attention_over_time(record)
    path = output / "plots" / f"inside_{file_name(plan.run)}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    what = f"what {plan.agent} attends to, and what its limbs tell each other, on {body}"
    return [f"![{what}]({path.relative_to(output).as_posix()})", ""]


def _videos(agent: Agent, task: TaskSet, plan: AgentPlan, output: Path, seed: int) -> list[str]:
    body, filmed = (task.unseen or task.seen)[0], to_film(task)
    path = output / "videos" / f"{file_name(plan.run)}_{file_name(body)}.mp4"
    if filmed is None or not film_episode(agent, filmed, body, path, seed):
        return []
    link = path.relative_to(output).as_posix()
    return [f"Video of {body}: [{path.name}]({link})", ""]
