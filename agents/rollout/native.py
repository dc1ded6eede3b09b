"""``swingup.cpp``: compiled once, where the system has a compiler, and kept for later runs."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from torch import Tensor

from ..device import cpuinfo, processor

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("swingup.cpp")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-shared", "-fPIC")
SECONDS = 120


def call(function: str, *arguments: Tensor | int) -> None:
    """Call a function of the library with tensors, which must be contiguous, and whole numbers."""
    assert all(a.is_contiguous() for a in arguments if isinstance(a, Tensor))
    given = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_int64(a) for a in arguments]
    getattr(library(), function)(*given)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled source; None, which is logged: it cannot be compiled here, and torch does its work.

    It is kept in ``$XDG_CACHE_HOME/somite`` (``~/.cache/somite``), under a name that tells the source, the
    compiler and the processor.
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        log.info("there is no C++ compiler (%s): populations are some 3 times slower", ", ".join(COMPILERS))
        return None
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, timeout=SECONDS, check=True)
        what = SOURCE.read_bytes(), FLAGS, version.stdout, processor(), cpuinfo("flags")
        key = hashlib.sha256(repr(what).encode()).hexdigest()[:16]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "somite"
        kept = cache / f"{SOURCE.stem}-{key}.so"
        if not kept.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                made = Path(folder) / kept.name
                command = [compiler, *FLAGS, str(SOURCE), "-o", str(made)]
                subprocess.run(command, capture_output=True, timeout=SECONDS, check=True, text=True)
                made.replace(kept)  # at once: other processes may be about to load it
        return ctypes.CDLL(str(kept))
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        log.warning(
            "%s cannot be compiled, and populations are some 3 times slower: %s", SOURCE.name, told[:1]
        )
        return None
