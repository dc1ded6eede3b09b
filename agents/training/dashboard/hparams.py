"""Hyperparameters and final scores of a run, for TensorBoard's tab *HPARAMS*."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.summary import hparams

GROUPS = ("agent", "algorithm", "env")
FIRST = ("agent", "algorithm", "algorithm.learning_rate", "env", "seed")
"""Columns that the tab shows unasked; the others can be ticked."""

_NAMES_OF_TASKS = ("family", "morphology", "id")
_NO_SETTINGS = ("keep_checkpoints", "checkpoint_every", "zero_shot_every")


def flat(config: Mapping[str, Any]) -> dict[str, float | str]:
    """The configuration with dotted keys, as the table of hyperparameters takes it.

    What is built is told by its class's name (``agent``: LimbTransformer), the environment by its family,
    robot or id; lists and truth values are text; null is left out, as is what changes no result.

    Args:
        config: of the run, resolved.
    """
    found: dict[str, float | str] = {"seed": config["seed"]}
    if config.get("start_from"):
        found["start_from"] = str(config["start_from"])
    found |= {name: str(config[name]) for name in ("precision", "simulation") if config.get(name)}
    for group in GROUPS:
        node = config[group]
        found[group] = str(node["_target_"]).rpartition(".")[2]
        found |= _flat(node, group)
    for name in _NAMES_OF_TASKS:
        if config["env"].get(name):
            found["env"] = str(config["env"][name])
    return found


def _flat(node: Mapping[str, Any], prefix: str) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}.{key}")
        elif value is not None and key != "_target_" and key not in _NO_SETTINGS:
            plain = isinstance(value, (int, float, str)) and not isinstance(value, bool)
            found[f"{prefix}.{key}"] = value if plain else str(value)
    return found


def summaries(
    values: Mapping[str, float | str], metrics: Mapping[str, str]
) -> tuple[Summary, Summary, Summary]:
    """What the tab reads: the experiment, the start of the run and its end.

    They belong into the run's own event file; `SummaryWriter.add_hparams` would begin a run of its own. The
    tab shows the last value of each metric, while the run is going on, too.

    Args:
        values: of `flat`.
        metrics: names of scalars, and what stands over their columns.
    """
    experiment, begun, ended = hparams(dict(values), dict.fromkeys(metrics, 0.0))
    # The tab shows the columns that are said to differ before the others.
    plugin = experiment.value[0].metadata.plugin_data
    told = HParamsPluginData.FromString(plugin.content)
    for column in told.experiment.hparam_infos:
        column.differs = column.name in FIRST
    for metric in told.experiment.metric_infos:
        metric.display_name = metrics[metric.name.tag]
    plugin.content = told.SerializeToString()
    return experiment, begun, ended
