"""Hostile inputs, made from good ones by the mutations that faults and attackers make."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import strategies as st

INTERESTING = (
    "",
    " ",
    "nan",
    "inf",
    "-1",
    "0",
    "1e308",
    "1e-320",
    "2147483648",
    "4294967297",
    "18446744073709551616",
    "1 2",
    "0 0 0 0 0 0 0 0 0 0",
    "true",
    "../" * 20 + "etc/passwd",
    "/dev/zero",
    "\u202e\u0000x",
    "\U0001f916" * 50,
    "x" * 5000,
    "${oc.env:HOME}",
    "%s%n",
)
"""Values at which parsers, sizes and paths go wrong."""


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits flipped, bytes removed, doubled or put in, cut off, numbers made huge."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[at : at + rng.choice([1, 2, 8, 100, 10_000])]
        elif kind == 2:
            changed[at:at] = changed[at : at + rng.choice([1, 8, 100, 1000])] * rng.choice([1, 2, 50])
        elif kind == 3:
            changed[at:at] = rng.choice([b"\0", b"\xff" * 8, b"<", b"]]>", b"&#0;", b"-->", rng.randbytes(8)])
        elif kind == 4:
            del changed[at:]
        else:
            changed[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
    return bytes(changed)


def from_random(make: Callable[[random.Random], bytes]) -> st.SearchStrategy[bytes]:
    """What a function makes of a random stream, each of which a test's report can name by its seed."""
    return st.integers(0, 2**40).map(lambda seed: make(random.Random(seed)))
