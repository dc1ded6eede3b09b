"""Compiles MJCF files in a process of its own: run by `CompileGuard`, imports nothing of this package.

For each line of input, a JSON list ``[path, seconds, bytes]``, one line of output: ``{}`` if the file
compiles and can be stepped, else what is wrong. Each file has a fork of its own, within limits on time and
memory, so that one on which MuJoCo crashes or never ends does no harm.
"""

import json
import os
import resource
import select
import signal
import sys
import time

import mujoco

MOST = {"nbody": 2000, "njnt": 4000, "nu": 2000, "ngeom": 20_000, "nsensordata": 1_000_000, "nkey": 10_000}
"""Of the parts of a robot."""

MOST_ITERATIONS = 100_000
ITERATIONS = ("iterations", "ls_iterations", "noslip_iterations", "ccd_iterations", "sdf_iterations")
STEPS = 20
WAIT = 6
"""Wall-clock time that is given, in multiples of the time of computation: other jobs may run."""


_REFUSED = (ValueError, RuntimeError, mujoco.FatalError)


def compile_file(path: str) -> dict[str, str]:
    """What is wrong with a file; nothing: it can be simulated."""
    # Warnings would be written into a file of the working folder.
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        try:
            spec = mujoco.MjSpec.from_file(path)
        except _REFUSED as error:
            return {"parse": str(error)}
        model = spec.compile()
        for name, most in MOST.items():
            if getattr(model, name) > most:
                return {"size": f"{name} is {getattr(model, name):,}; at most {most:,} are simulated"}
        for name in ITERATIONS:
            if getattr(model.opt, name, 0) > MOST_ITERATIONS:
                return {"size": f"option {name} is {getattr(model.opt, name):,}, at most {MOST_ITERATIONS:,}"}
        data = mujoco.MjData(model)
        for _ in range(STEPS):
            mujoco.mj_step(model, data)
        for key in range(min(model.nkey, STEPS)):
            mujoco.mj_resetDataKeyframe(model, data, key)
            mujoco.mj_step(model, data)
    except _REFUSED as error:
        return {"error": str(error)}
    except MemoryError:
        return {"memory": "out of memory"}
    return {}


def work(path: str, seconds: int, memory: int, answer: int) -> None:
    """In the fork: within the limits, without a file that grows, and without a core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.write(answer, json.dumps(compile_file(path)).encode())


def in_fork(path: str, seconds: int, memory: int) -> dict[str, str]:
    """The answer of a fork, or how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            work(path, seconds, memory, writing)
        finally:
            os._exit(0)
    os.close(writing)
    answer, end = b"", time.monotonic() + WAIT * seconds
    while True:
        ready, _, _ = select.select([reading], [], [], max(0.0, end - time.monotonic()))
        piece = os.read(reading, 65536) if ready else b""
        answer += piece
        if not piece:
            break
    os.close(reading)
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not ready or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)):
        return {"time": f"{seconds} s"}
    if answer:
        return json.loads(answer)
    if os.WIFSIGNALED(status):
        return {"crash": signal.Signals(os.WTERMSIG(status)).name}
    return {"memory": "out of memory"}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(in_fork(*json.loads(line))), flush=True)
