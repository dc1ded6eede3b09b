"""What the keys of the commands may be that belong to no section: seeds, devices, numbers of episodes.

Torch is not imported here: a wrong value is answered before.
"""

from __future__ import annotations

import re

from ..envs.numbers import FLAG, NAMES, NULL, POSITIVE, SEED, TEXT, Valid, one_of, whole

SIMULATIONS = ("auto", "cpu", "warp", "torch")
PRECISIONS = ("float32", "bf16")
ON_SAVE_ERROR = ("stop", "continue")
VIEWERS = ("auto", "mujoco", "window", "web")
UNFIT = ("fail", "skip")


class _Device(Valid):
    words = ("auto", "cpu", "cuda")
    wanted = "auto, cpu, cuda or cuda:<number>"

    def convert(self, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", value):
            raise ValueError
        return value


AUTO = one_of("auto")
DEVICE = _Device()
_EPISODES, _PROCESSES, _PLACES, _PIXELS = whole(1, 10**6), whole(1, 4096), whole(1, 10**7), whole(16, 8192)

KEYS: dict[str, dict[str, Valid]] = {
    "train": {
        "seed": SEED,
        "device": DEVICE,
        "simulation": one_of(*SIMULATIONS),
        "warp.contacts": _PLACES | NULL,
        "warp.constraints": _PLACES | NULL,
        "precision": one_of(*PRECISIONS),
        "threads": AUTO | _PROCESSES,
        "on_save_error": one_of(*ON_SAVE_ERROR),
    },
    "evaluate": {
        "episodes": _EPISODES | NULL,
        "seed": SEED,
        "device": DEVICE,
        "video": FLAG | NAMES,
        "random_baseline": FLAG,
        "unfit": one_of(*UNFIT),
        "threads": AUTO | _PROCESSES,
        "workers": AUTO | _PROCESSES,
    },
    "view": {"viewer": one_of(*VIEWERS), "seed": SEED, "port": whole(0, 65_535), "device": DEVICE},
    "describe": {"pictures": FLAG, "features": FLAG, "tokens": FLAG, "width": _PIXELS, "height": _PIXELS},
    "export": {"format": one_of("onnx"), "tolerance": POSITIVE},
    "references": {"episodes": _EPISODES, "seed": SEED, "threads": AUTO | _PROCESSES},
    "results": {"table": TEXT, "output": TEXT},
    "benchmark": {"output": TEXT | NULL},
}
"""By command, as in its file of ``conf/``. Who reads what names a file, a run or a body looks it up."""
