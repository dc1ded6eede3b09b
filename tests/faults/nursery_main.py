"""A process that has imported everything once and starts runs by forking: each is a process of its own.

Reads orders, a JSON line each: ``{"start": {...}}`` or ``{"poll": pid}``; answers with a JSON line.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux."""


def main() -> None:
    import hydra
    import torch
    import torch._dynamo  # else each run imports it, for seconds, where it makes its optimiser

    from somite.agents.training import loop as training  # noqa: F401
    from somite.scripts import train  # noqa: F401

    torch.set_num_threads(1)
    here = Path(__file__).parent
    sys.path[:0] = [str(here), str(here.parent)]
    importlib.import_module("parsed_once").parse_once()
    with hydra.initialize_config_module("somite.conf", version_base="1.3"):
        for choices in ([], ["algorithm=cma_es"], ["algorithm=clone", "env=cartpole_swingup"]):
            hydra.compose("train", [*choices], return_hydra_config=True)
    gc.freeze()  # else a collection of garbage in a run copies all of this memory
    answer({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        if "poll" in order:
            pid, status = os.waitpid(order["poll"], os.WNOHANG)
            answer({"code": os.waitstatus_to_exitcode(status) if pid else None})
            continue
        pid = os.fork()
        if pid == 0:
            ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)  # no run outlives the tests
            run(**order["start"])
        answer({"pid": pid})


def answer(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


def run(
    arguments: list[str], folder: str, output: str, mishaps: list[dict[str, Any]], ignored: list[int]
) -> NoReturn:
    code = 1
    try:
        os.chdir(folder)
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (file, 1), (file, 2)):
            os.dup2(source, target)
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        for mishap in mishaps:
            getattr(importlib.import_module("mishaps"), mishap.pop("name"))(**mishap)
        from somite.scripts import train

        train.main(arguments)
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
