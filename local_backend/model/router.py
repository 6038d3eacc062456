"""Chooses the experts of each token as DeepSeek-V2 and V3 do (arXiv 2405.04434, 2.2; 2412.19437, 2.1.2).

`greedy` takes the best experts of all. The other two first keep the best `topk_group` of `n_group` groups,
so that a token visits few machines: `group_limited_greedy` rates a group by its best expert, `noaux_tc` by
its best two, after a correction bias that balances the load without an auxiliary loss. The bias takes part
in the choice only; weights come from the scores.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from local_backend.model.config import DeepseekConfig

# How many experts of a group its score sums up.
_RATED = {"group_limited_greedy": 1, "noaux_tc": 2}


class Router(nn.Module):
    """Float32 whatever the model's dtype: near ties decide which expert runs."""

    e_score_correction_bias: Tensor | None

    def __init__(self, config: DeepseekConfig) -> None:
        super().__init__()
        self.top_k = config.num_experts_per_tok
        self.n_group = 1 if config.topk_method == "greedy" else config.n_group
        self.topk_group = config.topk_group
        self.rated = min(_RATED.get(config.topk_method, 1), config.n_routed_experts // config.n_group)
        self.is_softmax = config.scoring_func == "softmax"
        self.norm_topk_prob = config.norm_topk_prob
        self.routed_scaling_factor = config.routed_scaling_factor
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        has_bias = config.topk_method == "noaux_tc"
        self.register_buffer(
            "e_score_correction_bias", torch.empty(config.n_routed_experts) if has_bias else None
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """X [tokens, hidden] -> chosen experts, int64, and their weights, float32; [tokens, top_k] each."""
        scores = self._scores(x)
        bias = self.e_score_correction_bias
        chosen = self._choose(scores if bias is None else scores + bias)
        return chosen, self._scale(scores.gather(-1, chosen))

    def all_weights(self, x: Tensor) -> Tensor:
        """The weights of all experts, float32 [tokens, n_routed_experts], for a model that activates all."""
        return self._scale(self._scores(x))

    def _scores(self, x: Tensor) -> Tensor:
        logits = functional.linear(x.float(), self.weight)
        return logits.softmax(dim=-1) if self.is_softmax else logits.sigmoid()

    def _scale(self, weights: Tensor) -> Tensor:
        if self.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
            if self.is_softmax:
                # DeepSeek-V2's code scales only weights that it does not normalise.
                return weights
        return weights * self.routed_scaling_factor

    def _choose(self, scores: Tensor) -> Tensor:
        if self.n_group > 1:
            grouped = torch.unflatten(scores, -1, (self.n_group, -1))
            group_scores = grouped.topk(self.rated, dim=-1).values.sum(-1)
            best = group_scores.topk(self.topk_group, dim=-1).indices
            kept = torch.zeros_like(group_scores, dtype=torch.bool).scatter(-1, best, True)
            scores = grouped.masked_fill(~kept[..., None], float("-inf")).flatten(-2)
        return scores.topk(self.top_k, dim=-1).indices
