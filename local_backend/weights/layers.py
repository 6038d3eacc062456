"""Maps a checkpoint's tensors to the model's: which go where, joined how, and which share a process reads."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from local_backend.errors import WeightsError
from local_backend.model.config import DeepseekConfig
from local_backend.parallel.group import ParallelGroup
from local_backend.weights.deepseek_io import SCALE_SUFFIX, Checkpoint

# Cut by heads: these by rows, o_proj by columns.
_BY_ROWS = ("q_proj.weight", "q_b_proj.weight", "kv_b_proj.weight")
_BY_COLUMNS = ("o_proj.weight",)
_ONCE = ("o_proj.bias",)

# Old checkpoints carry this table, which the model computes.
_IGNORED = ("rotary_emb.inv_freq",)


class LayerReader:
    """Reads one layer's tensors under the names of DecoderLayer."""

    def __init__(
        self, checkpoint: Checkpoint, config: DeepseekConfig, index: int, group: ParallelGroup
    ) -> None:
        self._checkpoint = checkpoint
        self._config = config
        self._group = group
        self._is_dense = index < config.first_k_dense_replace
        self._prefix = f"model.layers.{index}."

    def tensors(self, layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Everything that `layer` holds. Raises WeightsError for a tensor that is missing or too many."""
        for name in ("input_layernorm.weight", "post_attention_layernorm.weight"):
            yield name, self._checkpoint[self._prefix + name]
        wanted = layer.get_submodule("self_attn").state_dict()
        self._refuse_unknown(f"{self._prefix}self_attn.", wanted)
        for name in wanted:
            yield f"self_attn.{name}", self._attention(name)
        if self._is_dense:
            yield from self._feed_forward("mlp.", "mlp.", self._config.intermediate_size)
            return
        yield from self._router()
        if self._config.all_experts_active:
            yield from self._fused()
        else:
            yield from self._experts()

    def _attention(self, name: str) -> Tensor:
        tensor = self._checkpoint[f"{self._prefix}self_attn.{name}"]
        if name in _BY_ROWS:
            return self._group.narrow(tensor, 0)
        if name in _BY_COLUMNS:
            return self._group.narrow(tensor, 1)
        if name in _ONCE and self._group.rank:
            # The parts are added up, so one process alone brings the bias.
            return torch.zeros_like(tensor)
        return tensor

    def _router(self) -> Iterator[tuple[str, Tensor]]:
        names = ["mlp.gate.weight"]
        if self._config.topk_method == "noaux_tc":
            names.append("mlp.gate.e_score_correction_bias")
        for name in names:
            yield name, self._checkpoint[self._prefix + name]

    def _experts(self) -> Iterator[tuple[str, Tensor]]:
        width = self._config.moe_intermediate_size
        if self._config.n_shared_experts:
            shared = width * self._config.n_shared_experts
            yield from self._feed_forward("mlp.shared_experts.", "mlp.shared_experts.", shared)
        count = self._group.share(self._config.n_routed_experts, "n_routed_experts")
        first = self._group.rank * count
        sources = [f"{self._prefix}mlp.experts.{expert}." for expert in range(first, first + count)]
        matrices = [torch.cat([self._gate(source), self._up(source)]) for source in sources]
        yield "mlp.experts.gate_up.weight", torch.stack(matrices)
        yield "mlp.experts.down.weight", torch.stack([self._down(source) for source in sources])

    def _fused(self) -> Iterator[tuple[str, Tensor]]:
        """Blocks of `moe_intermediate_size` neurons, shared experts first; a process has a slice of each."""
        experts = [f"{self._prefix}mlp.experts.{expert}." for expert in range(self._config.n_routed_experts)]
        shared = [f"{self._prefix}mlp.shared_experts."] if self._config.n_shared_experts else []
        gate_up, down = [], []
        width = self._config.moe_intermediate_size
        for source in shared + experts:
            gate = torch.unflatten(self._gate(source), 0, (-1, width))
            up = torch.unflatten(self._up(source), 0, (-1, width))
            parts = [self._group.narrow(blocks, 1) for blocks in (gate, up)]
            gate_up.append(torch.stack(parts, dim=1).flatten(0, 2))
            blocks = torch.unflatten(self._down(source), 1, (-1, width))
            down.append(self._group.narrow(blocks, 2).flatten(1))
        yield "mlp.gate_up.weight", torch.cat(gate_up)
        yield "mlp.down.weight", torch.cat(down, dim=1)

    def _feed_forward(self, source: str, target: str, width: int) -> Iterator[tuple[str, Tensor]]:
        source = self._prefix + source
        self._group.share(width, "the width of a feed-forward layer,")
        parts = [self._group.narrow(matrix, 0) for matrix in (self._gate(source), self._up(source))]
        yield f"{target}gate_up.weight", torch.cat(parts)
        yield f"{target}down.weight", self._group.narrow(self._down(source), 1)

    def _gate(self, source: str) -> Tensor:
        return self._checkpoint[f"{source}gate_proj.weight"]

    def _up(self, source: str) -> Tensor:
        return self._checkpoint[f"{source}up_proj.weight"]

    def _down(self, source: str) -> Tensor:
        return self._checkpoint[f"{source}down_proj.weight"]

    def _refuse_unknown(self, prefix: str, wanted: dict[str, Tensor]) -> None:
        for name in self._checkpoint:
            short = name.removeprefix(prefix).removesuffix(SCALE_SUFFIX)
            if name.startswith(prefix) and short not in wanted and short not in _IGNORED:
                raise WeightsError(
                    f"the checkpoint has {name!r}, which config.json does not speak of; "
                    "check q_lora_rank and attention_bias"
                )
