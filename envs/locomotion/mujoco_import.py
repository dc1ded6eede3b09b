"""Imports MuJoCo first, so that a drawing backend that keeps it from loading is told in one message."""

from __future__ import annotations

import os

from ..errors import UserError

try:
    import mujoco  # noqa: F401
except Exception as error:
    # MuJoCo loads the backend that MUJOCO_GL names as it is imported, also where nothing is drawn.
    if not os.environ.get("MUJOCO_GL"):
        raise
    raise UserError(
        f"MuJoCo does not load with MUJOCO_GL={os.environ['MUJOCO_GL']} ({error}). Unset it, and what works "
        "is found, or set it to egl or osmesa; on Debian these need `apt-get install libegl1 libgl1` (EGL) "
        "or `apt-get install libosmesa6` (OSMesa)"
    ) from error
