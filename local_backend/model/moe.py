"""Mixture of experts with shared experts and DeepSeek-V3's router (arXiv 2412.19437, section 2.1.2).

All experts of a layer lie in one pair of matrices, shared ones first, as equal blocks of
`moe_intermediate_size` neurons (a shared expert of n blocks is n such blocks side by side). When every routed
expert is active, a layer is then one wide FFN whose neurons are scaled by their expert's weight, which is
much faster than a loop; otherwise each chosen expert runs over the tokens that chose it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from local_backend.model.config import DeepseekConfig
from local_backend.model.linear import Projection


class Router(nn.Module):
    """Chooses `num_experts_per_tok` experts a token, within the best `topk_group` of `n_group` groups.

    The correction bias takes part in the choice only; weights come from the unbiased sigmoid.
    """

    e_score_correction_bias: Tensor

    def __init__(self, config: DeepseekConfig) -> None:
        super().__init__()
        self.top_k = config.num_experts_per_tok
        self.n_group = config.n_group
        self.topk_group = config.topk_group
        self.norm_topk_prob = config.norm_topk_prob
        self.routed_scaling_factor = config.routed_scaling_factor
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.empty(config.n_routed_experts))

    def scores(self, x: Tensor) -> Tensor:
        """X [tokens, hidden] -> sigmoid scores, float32 [tokens, n_routed_experts]."""
        return functional.linear(x.float(), self.weight.float()).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """X [tokens, hidden] -> expert weights, float32 [tokens, n_routed_experts], zero where not chosen."""
        scores = self.scores(x)
        chosen = self._choose(scores + self.e_score_correction_bias.float())
        weights = torch.zeros_like(scores).scatter(-1, chosen, scores.gather(-1, chosen))
        return self.scale(weights)

    def scale(self, weights: Tensor) -> Tensor:
        """Normalise (where the model does) and scale the weights of the chosen experts."""
        if self.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return weights * self.routed_scaling_factor

    def _choose(self, biased: Tensor) -> Tensor:
        if self.n_group > 1:
            grouped = torch.unflatten(biased, -1, (self.n_group, -1))
            group_scores = grouped.topk(2, dim=-1).values.sum(-1)
            best = group_scores.topk(self.topk_group, dim=-1).indices
            kept = torch.zeros_like(group_scores, dtype=torch.bool).scatter(-1, best, True)
            biased = grouped.masked_fill(~kept[..., None], float("-inf")).flatten(-2)
        return biased.topk(self.top_k, dim=-1).indices


class MixtureOfExperts(nn.Module):
    """Shared and routed experts. x [batch, tokens, hidden] -> the same shape."""

    def __init__(self, config: DeepseekConfig) -> None:
        super().__init__()
        self.n_shared = config.n_shared_experts
        self.n_routed = config.n_routed_experts
        self.width = config.moe_intermediate_size
        self.all_active = config.all_experts_active
        self.gate = Router(config)
        neurons = (self.n_shared + self.n_routed) * self.width
        matrix = Projection if self.all_active else nn.Linear
        self.gate_up = matrix(config.hidden_size, 2 * neurons, bias=False)
        self.down = matrix(neurons, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        output = self._fused(flat) if self.all_active else self._routed(flat)
        return output.view_as(x)

    def _fused(self, x: Tensor) -> Tensor:
        """Every expert for every token in one product; x [tokens, hidden]."""
        weights = self.gate.scale(self.gate.scores(x)).to(x.dtype)
        gate, up = torch.unflatten(self.gate_up(x), -1, (-1, 2, self.width)).unbind(-2)
        active = functional.silu(gate) * up
        active[:, self.n_shared :] *= weights[:, :, None]
        output: Tensor = self.down(active.flatten(1))
        return output

    def _routed(self, x: Tensor) -> Tensor:
        """Shared experts for all tokens, then each chosen expert for its own; x [tokens, hidden]."""
        weights = self.gate(x).to(x.dtype)
        gate_up = torch.unflatten(self.gate_up.weight, 0, (-1, 2 * self.width))
        down = torch.unflatten(self.down.weight, 1, (-1, self.width))
        output = torch.zeros_like(x)
        for block in range(self.n_shared):
            output += _expert(x, gate_up[block], down[:, block])
        for expert in range(self.n_routed):
            tokens = weights[:, expert].nonzero()[:, 0]
            if len(tokens):
                block = self.n_shared + expert
                result = _expert(x[tokens], gate_up[block], down[:, block])
                output.index_add_(0, tokens, result * weights[tokens, expert, None])
        return output


class FeedForward(nn.Module):
    """The dense FFN of the first layers, SwiGLU (arXiv 2002.05202). x [.., hidden] -> the same shape."""

    def __init__(self, config: DeepseekConfig) -> None:
        super().__init__()
        self.gate_up = Projection(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down = Projection(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        output: Tensor = self.down(functional.silu(gate) * up)
        return output


def _expert(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    gate, up = functional.linear(x, gate_up).chunk(2, dim=-1)
    return functional.linear(functional.silu(gate) * up, down)
