"""Steps simulations beside each other: on a GPU as one graph, whose kernels need no launches of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .warp_models import warp_modules
from .warp_simulation import WarpSimulation


class Launcher:
    """Launches what all simulations of an environment have to do.

    On a GPU the kernels are recorded once, those of each simulation on a stream of its own, so that small
    batches of different bodies are computed beside each other; then the recording is launched. Torch's
    operations before and after are in the same stream, so that nothing waits for anything else.

    Args:
        simulations: of one device.
        device: theirs.
    """

    def __init__(self, simulations: Sequence[WarpSimulation], device: torch.device) -> None:
        self._simulations, self._device = list(simulations), device
        self._graphs: dict[str, Any] = {}

    def launch(self) -> None:
        """Advance all rows by a step."""
        self._run("substeps", WarpSimulation.substeps)

    def kinematics(self) -> None:
        """Compute what is read of the limbs from the present state of all rows."""
        self._run("kinematics", WarpSimulation.kinematics)

    def _run(self, name: str, work: Callable[[WarpSimulation], None]) -> None:
        warp, _ = warp_modules()
        if self._device.type == "cpu":
            with warp.ScopedDevice("cpu"):
                for simulation in self._simulations:
                    work(simulation)
            return
        stream = warp.stream_from_torch(torch.cuda.current_stream(self._device))
        if name not in self._graphs:
            self._graphs[name] = self._record(work, stream)
        warp.capture_launch(self._graphs[name], stream=stream)

    def _record(self, work: Callable[[WarpSimulation], None], after: Any) -> Any:
        """A graph of the work of all simulations, from their present state on; that state does not change."""
        warp, _ = warp_modules()
        device = warp.get_device(str(self._device))
        # Kernels are compiled and loaded beforehand, which a recording does not allow; states are put back.
        kept = [simulation.snapshot() for simulation in self._simulations]
        with warp.ScopedDevice(device), warp.ScopedStream(after):
            for simulation in self._simulations:
                work(simulation)
        for simulation, state in zip(self._simulations, kept, strict=True):
            simulation.restore(state)
        torch.cuda.synchronize(self._device)
        main, others = warp.Stream(device), [warp.Stream(device) for _ in self._simulations]
        with warp.ScopedDevice(device), warp.ScopedCapture(stream=main) as capture:
            begun = main.record_event()
            for simulation, stream in zip(self._simulations, others, strict=True):
                stream.wait_event(begun)
                with warp.ScopedStream(stream, sync_enter=False):
                    work(simulation)
                main.wait_event(stream.record_event())
        return capture.graph

    def close(self) -> None:
        """Let the graphs and simulations go."""
        self._graphs, self._simulations = {}, []
