"""Steps simulations beside each other by recorded graphs, whose kernels need no launches of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .warp_models import warp_modules
from .warp_worlds import WarpWorlds


class Launcher:
    """Launches what all simulations of an environment have to do.

    The kernels of each simulation are recorded once as a graph, which is then launched: from Python their
    launches take many times as long as what they compute, on a CPU with four ants forty times. On a GPU every
    graph has a stream of its own, so that small batches of different bodies are computed beside each other;
    torch's stream waits for them on the device, and the host for nothing.

    Args:
        simulations: of one device.
        device: theirs.
    """

    def __init__(self, simulations: Sequence[WarpWorlds], device: torch.device) -> None:
        self._simulations, self._device = list(simulations), device
        self._graphs: dict[str, list[Any]] = {}
        self._streams: list[Any] = []

    def launch(self) -> None:
        """Advance all rows by a step."""
        self._run("substeps", WarpWorlds.substeps)

    def kinematics(self) -> None:
        """Compute what is read of the limbs from the present state of all rows."""
        self._run("kinematics", WarpWorlds.kinematics)

    def _run(self, name: str, work: Callable[[WarpWorlds], None]) -> None:
        warp, _ = warp_modules()
        if name not in self._graphs:
            self._graphs[name] = [self._record(simulation, work) for simulation in self._simulations]
        if self._device.type == "cpu":
            for graph in self._graphs[name]:
                warp.capture_launch(graph)
            return
        if not self._streams:
            device = warp.get_device(str(self._device))
            self._streams = [warp.Stream(device) for _ in self._simulations]
        torch_stream = warp.stream_from_torch(torch.cuda.current_stream(self._device))
        begun = torch_stream.record_event()
        for graph, stream in zip(self._graphs[name], self._streams, strict=True):
            stream.wait_event(begun)
            warp.capture_launch(graph, stream=stream)
            torch_stream.wait_event(stream.record_event())

    def _record(self, simulation: WarpWorlds, work: Callable[[WarpWorlds], None]) -> Any:
        """A graph of a simulation's work; its state stays what it is."""
        warp, _ = warp_modules()
        name = str(self._device)
        if self._device.type != "cpu":
            torch.cuda.synchronize(self._device)  # Warp has a stream of its own here
        # Kernels are compiled and loaded beforehand, which a recording does not allow; the state is put back.
        state = simulation.snapshot()
        with warp.ScopedDevice(name):
            work(simulation)
            warp.synchronize_device(name)
            simulation.restore(state)
            if self._device.type != "cpu":
                torch.cuda.synchronize(self._device)
            with warp.ScopedCapture(name) as capture:
                work(simulation)
        return capture.graph

    def close(self) -> None:
        """Let the graphs and simulations go."""
        self._graphs, self._simulations, self._streams = {}, [], []
