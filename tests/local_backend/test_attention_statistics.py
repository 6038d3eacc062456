"""What calibration learns of attention equals what a plain loop over tokens finds."""

import math
from pathlib import Path

import pytest
import torch

from local_backend.compress.attention import Attended, attend
from local_backend.compress.dense import DenseLayer, read_dense
from local_backend.compress.latent import as_pairs, choose_pairs, compressed, pair_basis
from local_backend.compress.student import dense_frequencies
from local_backend.weights.deepseek_io import Checkpoint
from local_backend.weights.load import load_config
from tests.local_backend import tiny_dense

TOKENS = 24


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dense.exact_folder(tmp_path_factory.mktemp("exact"))


@pytest.fixture(scope="module")
def layer(exact: Path) -> DenseLayer:
    with Checkpoint(exact) as checkpoint:
        return read_dense(checkpoint, load_config(exact), 1)


@pytest.fixture(scope="module")
def inputs(exact: Path) -> torch.Tensor:
    return tiny_dense.observed(exact).attention[1][:2, :TOKENS]


@pytest.fixture(scope="module")
def attended(exact: Path, layer: DenseLayer, inputs: torch.Tensor) -> Attended:
    return attend(layer, inputs, dense_frequencies(load_config(exact)))


def test_tokens_count_by_the_attention_they_get(
    exact: Path, layer: DenseLayer, inputs: torch.Tensor, attended: Attended
) -> None:
    frequencies = dense_frequencies(load_config(exact)).double()
    got = torch.zeros(2, TOKENS, dtype=torch.float64)
    turned = torch.zeros(len(layer.query), len(frequencies), dtype=torch.complex128)
    strength = torch.zeros(len(layer.query), len(frequencies), dtype=torch.float64)
    groups = layer.group_of_head.tolist()
    for text, x in enumerate(inputs.double()):
        queries = torch.einsum("hid,td->hti", as_pairs(layer.query), x.to(torch.complex128))
        keys = torch.einsum("gid,td->gti", as_pairs(layer.key), x.to(torch.complex128))
        for head, group in enumerate(groups):
            for at in range(TOKENS):
                distance = at - torch.arange(at + 1)
                turns = torch.polar(torch.ones(()).double(), distance[:, None] * frequencies)
                met = queries[head, at] * keys[group, : at + 1].conj()
                scores = (met * turns).real.sum(-1) / math.sqrt(layer.query.shape[1])
                weights = scores.softmax(0)
                got[text, : at + 1] += weights
                slope = (weights * (1 - weights))[:, None] * met.abs().square()
                turned[head] += (slope * turns).sum(0)
                strength[head] += slope.sum(0)
    share = (got / got.sum()).flatten()
    x = inputs.double().flatten(0, 1)
    torch.testing.assert_close(attended.mean, share @ x, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(attended.keys, (x.T * share) @ x, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(attended.queries, x.T @ x / len(x), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(attended.turns, turned / strength, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(attended.strength, strength, atol=1e-5, rtol=1e-3)


def test_pairs_that_hardly_turn_lose_their_rotation_first(layer: DenseLayer, attended: Attended) -> None:
    pairs = choose_pairs([pair_basis(layer, attended)], [attended], 6)
    still = attended.turns.abs().mean(0)
    kept = sum(float(still[at]) for at, _ in pairs) / len(pairs)
    assert kept < float(still.mean())


def test_what_all_values_share_needs_no_latent(layer: DenseLayer, attended: Attended) -> None:
    """A narrow latent loses nothing of the mean output: the bias carries it."""
    basis = pair_basis(layer, attended)
    plan = compressed(layer, attended, basis, choose_pairs([basis], [attended], 4), rank=3)
    head_dim = layer.value.shape[1]
    latent = plan.kv_a[:3].double() @ attended.mean
    values = plan.kv_b.double()[:, -head_dim:] @ latent
    exact_values = (layer.value.double() @ attended.mean)[layer.group_of_head]
    output = layer.output.double()
    found = torch.einsum("iho,ho->i", output, values) + plan.output_bias
    torch.testing.assert_close(found, torch.einsum("iho,ho->i", output, exact_values), atol=1e-4, rtol=1e-3)
