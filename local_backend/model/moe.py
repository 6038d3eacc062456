"""Feed-forward layers: dense SwiGLU (arXiv 2002.05202) and DeepSeekMoE (arXiv 2401.06066).

Where every routed expert is active, a layer is one wide FFN whose neurons are scaled by their expert's
weight: one product instead of many. Otherwise each token goes to its chosen experts by grouped products.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from local_backend.kernels.dispatch import capabilities, is_masked_layout
from local_backend.kernels.expert_layout import Contiguous, Masked
from local_backend.model.config import DeepseekConfig
from local_backend.model.linear import GroupedProjection, Projection
from local_backend.model.router import Router


class FeedForward(nn.Module):
    """SwiGLU with gate and up in one matrix. x [.., hidden] -> the same shape."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_up = Projection(hidden, 2 * width, bias=False)
        self.down = Projection(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down(swiglu(self.gate_up(x)))
        return output


class Experts(nn.Module):
    """The routed experts from `first` on: all of a layer, or a rank's share of them."""

    def __init__(self, config: DeepseekConfig, count: int, first: int = 0) -> None:
        super().__init__()
        self.count, self.first = count, first
        self.is_partial = count < config.n_routed_experts
        width = config.moe_intermediate_size
        self.gate_up = GroupedProjection(count, config.hidden_size, 2 * width)
        self.down = GroupedProjection(count, width, config.hidden_size)

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """X [tokens, hidden], chosen experts and their weights [tokens, top_k] -> [tokens, hidden]."""
        if is_masked_layout(capabilities(x.device), chosen.numel(), self.count):
            return self.masked(x, chosen, weights)
        return self.contiguous(x, chosen, weights)

    def contiguous(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """The contiguous layout: no row is wasted."""
        layout = Contiguous.of(chosen, self.count, self.first, self.is_partial)
        active = swiglu(self.gate_up.contiguous(layout.gather(x), layout.offsets))
        return layout.combine(self.down.contiguous(active, layout.offsets), weights)

    def masked(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """The masked layout: shapes do not depend on the router."""
        layout = Masked.of(chosen, self.count, self.first)
        active = swiglu(self.gate_up.masked(layout.gather(x), layout.counts))
        return layout.combine(self.down.masked(active, layout.counts), weights)


class MixtureOfExperts(nn.Module):
    """Shared experts for every token (as one FFN) and routed ones. x [batch, tokens, hidden] -> the same."""

    def __init__(self, config: DeepseekConfig, experts: Experts) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = experts
        shared = config.n_shared_experts * config.moe_intermediate_size
        self.shared_experts = FeedForward(config.hidden_size, shared) if shared else None

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        output: Tensor = self.experts(flat, *self.gate(flat))
        if self.shared_experts is not None:
            output = output + self.shared_experts(flat)
        return output.view_as(x)


class FusedExperts(nn.Module):
    """All experts for every token in one product, shared ones first. x [batch, tokens, hidden] -> the same.

    The matrices hold one block of `moe_intermediate_size` gate rows and as many up rows an expert.
    """

    def __init__(self, config: DeepseekConfig) -> None:
        super().__init__()
        self.n_shared = config.n_shared_experts
        self.width = config.moe_intermediate_size
        self.gate = Router(config)
        neurons = (self.n_shared + config.n_routed_experts) * self.width
        self.gate_up = Projection(config.hidden_size, 2 * neurons, bias=False)
        self.down = Projection(neurons, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        weights = self.gate.all_weights(flat).to(x.dtype)
        gate, up = torch.unflatten(self.gate_up(flat), -1, (-1, 2, self.width)).unbind(-2)
        active = functional.silu(gate) * up
        active[:, self.n_shared :] *= weights[:, :, None]
        output: Tensor = self.down(active.flatten(1))
        return output.view_as(x)


def swiglu(gate_up: Tensor) -> Tensor:
    """[.., 2 * width], gate before up, -> [.., width]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate) * up
