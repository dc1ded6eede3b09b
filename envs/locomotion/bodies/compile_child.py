"""Compiles MJCF files in a process of its own: run by `CompileGuard`, imports nothing of this package.

For each line of input, a JSON list ``[path, seconds, bytes]``, one line of output: "" if the file compiles
and can be stepped, else what is wrong, as half a sentence in JSON. Each file has a fork of its own, within
limits on time and memory, so that one on which MuJoCo crashes or never ends does no harm.
"""

import json
import os
import resource
import signal
import sys

import mujoco

MOST = {"nbody": 2000, "njnt": 4000, "nu": 2000, "ngeom": 20_000, "nsensordata": 1_000_000, "nkey": 10_000}
"""Of the parts of a robot."""

MOST_ITERATIONS = 100_000
ITERATIONS = ("iterations", "ls_iterations", "noslip_iterations", "ccd_iterations", "sdf_iterations")
STEPS = 20
WAIT = 6  # wall-clock time that is given, in multiples of the time of computation: other jobs may run


_REFUSED = (ValueError, RuntimeError, mujoco.FatalError)


def compile_file(path: str) -> str:
    """What is wrong with a file, as half a sentence; "": it can be simulated. Raises MemoryError."""
    # Warnings would be written into a file of the working folder.
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        spec = mujoco.MjSpec.from_file(path)
    except _REFUSED as error:
        return f"is no MJCF that MuJoCo reads: {error}"
    try:
        model = spec.compile()
        for name, most in MOST.items():
            if getattr(model, name) > most:
                return f"is too large: {name} is {getattr(model, name):,}; at most {most:,} are simulated"
        for name in ITERATIONS:
            given = getattr(model.opt, name, 0)
            if given > MOST_ITERATIONS:
                return f"is too large: option {name} is {given:,}, at most {MOST_ITERATIONS:,}"
        data = mujoco.MjData(model)
        for _ in range(STEPS):
            mujoco.mj_step(model, data)
        for key in range(min(model.nkey, STEPS)):
            mujoco.mj_resetDataKeyframe(model, data, key)
            mujoco.mj_step(model, data)
    except _REFUSED as error:
        return f"does not compile: {error}"
    return ""


def work(path: str, seconds: int, memory: int) -> str:
    """In the fork: within the limits, without a file that grows, and without a core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.alarm(WAIT * seconds)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    return json.dumps(compile_file(path))


def in_fork(path: str, seconds: int, memory: int) -> str:
    """The answer of a fork in JSON, or how it ended."""
    most = resource.getrlimit(resource.RLIMIT_AS)[1]  # of this user, as batch systems set it
    memory = memory if most == resource.RLIM_INFINITY else min(memory, most)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.write(writing, work(path, seconds, memory).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if killed in (signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM):
        within = f"does not compile and step within {seconds} s of computation"
        return json.dumps(f"{within}; a robot that needs longer is given env.compile_seconds=<seconds>")
    if killed and not answer:
        return json.dumps(f"cannot be read: MuJoCo crashes on it ({signal.Signals(killed).name})")
    return answer or json.dumps(f"needs more than {memory / 2**30:.3g} GiB of memory to compile")


if __name__ == "__main__":
    for line in sys.stdin:
        print(in_fork(*json.loads(line)), flush=True)
