"""Where the time of a pass goes: by layer from clocks, by kernel from torch's profiler.

The two are separate runs, because the profiler slows what it watches.
"""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from local_backend.clock import now
from local_backend.engine.latents import Extent, LatentFormat, LatentPool
from local_backend.measure.energy import Meter
from local_backend.model.model import DeepseekV3

_BLOCK = 64


@dataclass(frozen=True)
class Kernel:
    """An operation of one pass: milliseconds of its own, and calls."""

    name: str
    milliseconds: float
    calls: int


class Passes:
    """Passes over a cache that is filled as far as they read; `rows` sequences of `context` positions."""

    def __init__(self, model: DeepseekV3, form: LatentFormat, rows: int, context: int) -> None:
        self._model = model
        self._device = model.embed_tokens.weight.device
        blocks = -(-context // _BLOCK)
        self._tables = [range(row * blocks, (row + 1) * blocks) for row in range(rows)]
        self._pool = LatentPool(model.config, rows * blocks, _BLOCK, self._device, form)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(model.config.vocab_size, (rows, context), generator=generator)
        self._ids = ids.to(self._device)
        self.rows, self.context = rows, context

    def prompt(self) -> Tensor:
        """Run the first row's prompt in one pass."""
        return self._run(self._ids[:1], 0)

    def decode(self) -> Tensor:
        """Run the last token of every row."""
        return self._run(self._ids[:, -1:], self.context - 1)

    @torch.inference_mode()
    def _run(self, ids: Tensor, start: int) -> Tensor:
        extents = [Extent(table, start, self.context) for table in self._tables[: len(ids)]]
        positions = torch.arange(start, self.context, device=self._device).expand(len(ids), -1)
        hidden = self._model(ids, positions, self._pool.view(extents))
        logits = self._model.logits(hidden[:, -1])
        _finish(self._device)
        return logits


def seconds(run: Callable[[], object], repeat: int) -> float:
    """The median time of a run, after one that doesn't count."""
    run()
    taken = []
    for _ in range(repeat):
        start = now()
        run()
        taken.append(now() - start)
    return statistics.median(taken)


def joules(run: Callable[[], object], repeat: int, meter: Meter) -> float:
    """Energy of one run, the machine's idle power included."""
    before = meter.read()
    for _ in range(repeat):
        run()
    return meter.spent(before, meter.read()) / repeat


def layer_milliseconds(model: DeepseekV3, run: Callable[[], object], repeat: int) -> dict[str, list[float]]:
    """The median of attention and of the feed-forward part in each layer, and of the output matrix."""
    parts: dict[str, list[nn.Module]] = {
        "attention": [layer.get_submodule("self_attn") for layer in model.layers],
        "feed_forward": [layer.get_submodule("mlp") for layer in model.layers],
        "head": [model.lm_head],
    }
    return {name: _timed(modules, run, repeat) for name, modules in parts.items()}


def kernels(run: Callable[[], object], device: torch.device, repeat: int) -> list[Kernel]:
    """The operations of a run, those that take longest first."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        for _ in range(repeat):
            run()
    found = []
    for event in profiler.key_averages():
        micros = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        found.append(Kernel(event.key, micros / 1000 / repeat, round(event.count / repeat)))
    return sorted(found, key=lambda kernel: -kernel.milliseconds)


def _timed(modules: list[nn.Module], run: Callable[[], object], repeat: int) -> list[float]:
    with _clocks(modules) as times:
        run()
        for each in times:
            each.clear()
        for _ in range(repeat):
            run()
    return [1000 * statistics.median(each) for each in times]


@contextmanager
def _clocks(modules: list[nn.Module]) -> Iterator[list[list[float]]]:
    """Times of every call of each module while the context lasts."""
    times: list[list[float]] = [[] for _ in modules]
    starts = [0.0] * len(modules)

    def clock_in(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, _inputs: object) -> None:
            _finish_of(module)
            starts[index] = now()

        return hook

    def clock_out(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, _inputs: object, _output: object) -> None:
            _finish_of(module)
            times[index].append(now() - starts[index])

        return hook

    handles = [
        handle
        for index, module in enumerate(modules)
        for handle in (
            module.register_forward_pre_hook(clock_in(index)),
            module.register_forward_hook(clock_out(index)),
        )
    ]
    try:
        yield times
    finally:
        for handle in handles:
            handle.remove()


def _finish_of(module: nn.Module) -> None:
    for tensor in (*module.parameters(), *module.buffers()):
        _finish(tensor.device)
        return


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
