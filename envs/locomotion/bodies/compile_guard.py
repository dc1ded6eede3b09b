"""Keeps files on which MuJoCo crashes, or never ends, away from this process.

MuJoCo's compiler trusts its input: a height field whose size overflows ends the process, a mechanism that is
repeated a million times never ends. So a file is compiled in another process first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ...errors import UserError, one_line

SECONDS = 5
"""Of computation that a robot may need to compile and make its first steps; public ones need below one."""

MEMORY = 8 * 2**30
"""Bytes of addresses that it may need; the process itself takes one of the eight."""

_REFUSALS = {  # by what the process answers
    "time": "does not compile and step within {told} of computation; a robot that needs longer is given "
    "env.compile_seconds=<seconds>",
    "memory": "needs more than {memory} GiB of memory to compile",
    "crash": "cannot be read: MuJoCo crashes on it ({told})",
    "size": "is too large: {told}",
    "parse": "is no MJCF that MuJoCo reads: {told}",
    "error": "does not compile: {told}",
}
_CHILD = Path(__file__).with_name("compile_child.py")


class CompileGuard:
    """A process that compiles files within limits; a context manager, which ends it.

    Starting it takes 0.3 s, which all files of one guard share.

    Args:
        seconds: of computation for each file.
        memory: bytes for each file.
    """

    def __init__(self, seconds: int = SECONDS, memory: int = MEMORY) -> None:
        self._limits = (seconds, memory)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> CompileGuard:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.kill()  # it has nothing to lose
            self._process.wait()

    def check(self, path: Path) -> None:
        """Compiles a file and steps it.

        Raises:
            UserError: MuJoCo does not compile it, crashes on it, or needs more time or memory than it may.
        """
        for kind, told in self._ask(path).items():
            said = _REFUSALS[kind].format(told=one_line(told), memory=self._limits[1] >> 30)
            raise UserError(f"{path} {said}")

    def _ask(self, path: Path) -> dict[str, str]:
        if self._process is None:
            # No display, no threads: it draws nothing. In a folder of its own: nothing is imported from ours.
            environment = {**os.environ, "MUJOCO_GL": "disable", "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
                cwd=tempfile.gettempdir(),
            )
        try:
            self._process.stdin.write(json.dumps([os.path.abspath(path), *self._limits]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise RuntimeError(f"the process that compiles robots has ended with code {code}")
        return json.loads(line)
