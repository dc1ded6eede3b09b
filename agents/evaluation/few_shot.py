"""Few-shot adaptation: a body's own training before it is tried, and how fast it comes to what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import closing, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ...envs.task_set import target_of, task_set_of
from ..composition import sizes_for
from ..storage import run_folder
from ..storage.atomic import remove_folder
from ..storage.policy import load_policy
from ..training.loop import Run, train
from .plan import Chunk

LOG = "training.log"  # in the folder of a training: its progress and its warnings


def trained(chunk: Chunk) -> Path:
    """The folder of a policy that has been trained as a chunk says; what has been learnt before is kept.

    Its run goes on from its last checkpoint, exactly, so that neither an interruption nor other numbers of
    steps between change what is learnt.

    Raises:
        UserError: another process trains it.
        RunFault: the training cannot go on.
        SystemExit: it was told to stop; it has been saved.
    """
    folder, steps = chunk.run, chunk.training.steps
    made = [run_folder.step_of(path) for path in run_folder.list_checkpoints(folder)]
    if made and made[-1] > steps and steps not in made:  # fewer steps are asked for than were last time
        with run_folder.hold(folder):
            remove_folder(folder)
    if steps not in made:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOG).open("a", encoding="utf-8") as told, redirect_stderr(told):
            config = training_config(chunk)
            if steps:
                train(config, folder)
            else:
                with run_folder.hold(folder):
                    run = Run(config, folder, torch.device("cpu"))
                    with closing(run.learner), closing(run.records):
                        run.save()
    return run_folder.find_checkpoint(folder, steps) / "policy"


def training_config(chunk: Chunk) -> DictConfig:
    """What ``conf/train.yaml`` would be for the training of a chunk: one body, one thread, a processor."""
    (body,), training, agent = chunk.bodies, chunk.training, load_policy(chunk.policy)
    # It is held out no longer, by a split or by name.
    sides = {} if chunk.environment.get("morphology") else {"split": "all"}
    if chunk.environment.get("unseen"):
        sides["unseen"] = []
    environment = {**chunk.environment, "bodies": [body], **sides}
    task, policy = task_set_of(environment), agent.policy
    for name, kind in task.parts.items():  # what a policy was saved without, and an evaluation adds
        if environment.get(name) is not None:
            environment[name] = {"_target_": target_of(kind), **environment[name]}
    with closing(task.make_env(aligned=policy.aligned_slots, threads=1)) as env:
        given = sizes_for(type(policy), env)
    built: Mapping[str, Any] = agent.description["policy"]
    if training.exploration is not None:
        built = {**built, "initial_log_std": math.log(training.exploration)}
    return OmegaConf.create(
        {
            "env": environment,
            "agent": {key: value for key, value in built.items() if key not in given},
            "algorithm": {**training.settings, "total_steps": max(1, training.steps)},
            "compute": {"_target_": "somite.agents.rollout.compute.Local"},
            "seed": training.seed,
            "start_from": str(chunk.policy) if training.start == "from_policy" else None,
            "device": "cpu",
            "simulation": "cpu",
            "precision": "float32",
            "threads": 1,
        }
    )
