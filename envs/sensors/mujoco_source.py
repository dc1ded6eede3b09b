"""Gymnasium's MuJoCo tasks stepped in one batch: the same episodes, several times as fast.

Gymnasium's own environment gives the model, the start and, by the arguments of its constructor, every
weight and bound; what stands here is only what no argument says.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium
import mujoco
import mujoco.batch
import numpy as np

from ..errors import UserError
from .gymnasium_source import NominalActions, find_spec, make_env, start_seed

# MuJoCo's warnings of divergence; importing them also keeps its log out of the user's folder.
from ..locomotion.simulation import _DIVERGED as DIVERGED
