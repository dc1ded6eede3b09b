"""Something that is done again and again on a GPU, launched as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

WARM_UP = 3
"""Runs before the capture: libraries get ready, and what is cached at the first call is cached."""


def repeated(
    function: Callable[[], None], device: torch.device, generators: Sequence[torch.Generator] = ()
) -> Callable[[], None]:
    """``function`` as what is called in a loop: on a GPU a CUDA graph, on a CPU itself.

    On a GPU it is run at once, `WARM_UP` times, and captured: what it has written is to be written anew
    before the loop begins. It must wait for nothing, read and write tensors that stay where they are, and
    draw from no generator but these.

    Args:
        function: what is repeated, without arguments and results.
        device: of its tensors.
        generators: of the device, that it draws from.
    """
    if device.type != "cuda":
        return function
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.device(device), torch.cuda.stream(side):
        for _ in range(WARM_UP):
            function()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    # Other threads, which may be busy with the GPU themselves, do not disturb a capture in this mode.
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        function()
    return graph.replay
