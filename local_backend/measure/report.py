"""What `profile` finds, as JSON and as text."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from local_backend.engine.latents import LatentFormat
from local_backend.measure.arithmetic import Flops, decode_flops, prompt_flops
from local_backend.measure.energy import Meter, find_meter
from local_backend.measure.timing import Kernel, Passes, joules, kernels, layer_milliseconds, seconds
from local_backend.measure.traffic import CacheBytes, Traffic, cache_bytes, decode_traffic
from local_backend.model.model import DeepseekV3

_SHOWN_KERNELS = 10


@dataclass(frozen=True)
class Profile:
    """One model on one device. Energy is joules a generated token, or the reason why it isn't known."""

    model: str
    device: str
    threads: int
    rows: int
    context: int
    decode: Flops
    prompt: Flops
    traffic: Traffic
    cache: CacheBytes
    decode_seconds: float
    prompt_seconds: float
    layers: dict[str, list[float]]
    decode_kernels: list[Kernel]
    prompt_kernels: list[Kernel]
    energy_source: str
    joules: float | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "decode_flops_per_token": self.decode.total,
            "prompt_flops_per_token": self.prompt.total,
            "bytes_per_token": self.traffic.total,
        }

    def as_text(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"{self.model} on {self.device}, {self.threads} threads, {self.context} positions"
        yield ""
        yield f"{'million FLOPs a token':24s}  decode    prompt"
        for name in ("projections", "context", "feed_forward", "head", "total"):
            decode, prompt = getattr(self.decode, name) / 1e6, getattr(self.prompt, name) / 1e6
            yield f"  {name:22s}{decode:8.1f}  {prompt:8.1f}"
        yield "MB a generated token (batch 1)"
        for name in ("weights", "cache_read", "cache_written", "total"):
            yield f"  {name:22s}{getattr(self.traffic, name) / 1e6:8.2f}"
        yield "cache bytes a token"
        yield f"  latents as kept       {self.cache.latents:8,}"
        for name, size in (
            ("latents, bfloat16", self.cache.latents_bfloat16),
            (f"GQA, {self.cache.groups} heads, bfloat16", self.cache.grouped_query),
            ("MHA, bfloat16", self.cache.multi_head),
        ):
            yield f"  {name:22s}{size:8,}  {size / self.cache.multi_head:7.0%} of MHA"
        rate = self.rows / self.decode_seconds
        yield f"decode: {1000 * self.decode_seconds:.1f} ms for {self.rows} rows, {rate:.1f} tokens/s"
        yield f"  {self.decode.total * rate / 1e9:.1f} GFLOP/s"
        if self.rows == 1:
            yield f"  {self.traffic.total * rate / 1e9:.1f} GB/s"
        rate = self.context / self.prompt_seconds
        yield f"prompt: {1000 * self.prompt_seconds:.0f} ms, {rate:.0f} tokens/s"
        yield f"  {self.prompt.total * rate / 1e9:.1f} GFLOP/s"
        if self.joules is None:
            yield f"energy: not measured; {self.energy_source}"
        else:
            yield f"energy ({self.energy_source}): {self.joules:.3f} J a generated token, idle power included"
        yield "decode, ms a layer       min     mean      max      sum"
        for name, each in self.layers.items():
            mean = sum(each) / len(each)
            yield f"  {name:18s}{min(each):8.2f} {mean:8.2f} {max(each):8.2f} {sum(each):8.2f}"
        for title, found in (("decode", self.decode_kernels), ("prompt", self.prompt_kernels)):
            yield f"{title} by kernel              ms   share   calls"
            whole = sum(kernel.milliseconds for kernel in found) or 1.0
            for kernel in found[:_SHOWN_KERNELS]:
                share = 100 * kernel.milliseconds / whole
                figures = f"{kernel.milliseconds:8.2f}  {share:4.1f}%  {kernel.calls:6d}"
                yield f"  {kernel.name[:40]:40s}{figures}"


def profile_model(name: str, model: DeepseekV3, form: LatentFormat, passes: Passes, repeat: int) -> Profile:
    """Measure a loaded model with `repeat` passes."""
    device = model.embed_tokens.weight.device
    config, context = model.config, passes.context
    prompt_seconds = seconds(passes.prompt, max(repeat // 4, 1))
    meter = find_meter(device)
    source, energy = (
        (meter.source, joules(passes.decode, repeat, meter) / passes.rows)
        if isinstance(meter, Meter)
        else (meter, None)
    )
    return Profile(
        model=name,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        threads=torch.get_num_threads(),
        rows=passes.rows,
        context=context,
        decode=decode_flops(config, context),
        prompt=prompt_flops(config, context),
        traffic=decode_traffic(model, form, context),
        cache=cache_bytes(config, form),
        decode_seconds=seconds(passes.decode, repeat),
        prompt_seconds=prompt_seconds,
        layers=layer_milliseconds(model, passes.decode, repeat),
        decode_kernels=kernels(passes.decode, device, repeat),
        prompt_kernels=kernels(passes.prompt, device, 1),
        energy_source=source,
        joules=energy,
    )
