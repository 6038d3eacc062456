import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from local_backend.engine.request import SamplingParams
from local_backend.engine.sampler import Sampler, restrict

LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=600).map(torch.tensor)
PLAIN = SamplingParams(max_tokens=10)


def sampler(params: SamplingParams, prompt: tuple[int, ...] = (), size: int = 5) -> Sampler:
    return Sampler(params, prompt, size)


def nucleus_by_definition(logits: torch.Tensor, top_k: int, top_p: float, min_p: float) -> set[int]:
    probabilities = logits.double().softmax(-1)
    order = probabilities.argsort(descending=True)[: top_k or None]
    kept = probabilities[order] / probabilities[order].sum()
    inside, mass = set(), 0.0
    for index, probability in zip(order.tolist(), kept.tolist(), strict=True):
        if inside and (mass >= top_p + 1e-6 or probability < min_p * float(kept[0]) - 1e-9):
            break
        inside.add(index)
        mass += probability
    return inside


@settings(max_examples=150)
@given(LOGITS, st.integers(0, 50), st.floats(0.05, 1.0), st.floats(0, 0.9))
def test_restriction_keeps_what_its_definition_keeps(
    logits: torch.Tensor, top_k: int, top_p: float, min_p: float
) -> None:
    ids, probabilities = restrict(logits, replace(PLAIN, top_k=top_k, top_p=top_p, min_p=min_p))
    assert len(ids) == len(set(ids.tolist())) == len(probabilities) >= 1
    assert int(logits.argmax()) in ids.tolist() or float(logits.max()) in logits[ids].tolist()
    # Ties and rounding at the very edge may fall either way; nothing else may differ.
    wanted = nucleus_by_definition(logits, top_k, top_p, min_p)
    difference = wanted.symmetric_difference(ids.tolist())
    edge = min(float(logits[i]) for i in wanted)
    near = [i for i in difference if abs(float(logits[i]) - edge) > 1e-3]
    mass = float(logits.double().softmax(-1)[torch.tensor(sorted(difference), dtype=torch.long)].sum())
    assert not near or mass < 1e-3


@given(LOGITS)
@settings(max_examples=50)
def test_temperature_zero_is_the_likeliest_token(logits: torch.Tensor) -> None:
    token = sampler(replace(PLAIN, temperature=0.0), size=len(logits)).sample(logits)
    assert logits[token.id] == logits.max()


def test_a_seed_repeats_and_another_differs() -> None:
    logits = torch.zeros(1000)

    def draw(seed: int) -> list[int]:
        each = sampler(replace(PLAIN, seed=seed), size=1000)
        return [each.sample(logits).id for _ in range(20)]

    assert draw(7) == draw(7) != draw(8)


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    each = sampler(replace(PLAIN, seed=1), size=3)
    counts = torch.zeros(3)
    for _ in range(4000):
        counts[each.sample(logits).id] += 1
    torch.testing.assert_close(counts / 4000, torch.tensor([0.5, 0.3, 0.2]), atol=0.03, rtol=0)


def greedy(logits: list[float], prompt: tuple[int, ...] = (), **changes: object) -> list[int]:
    each = sampler(replace(PLAIN, temperature=0.0, **changes), prompt, len(logits))  # type: ignore[arg-type]
    return [each.sample(torch.tensor(logits)).id for _ in range(3)]


def test_penalties_and_bias() -> None:
    assert greedy([2.0, 1.5, 0.0]) == [0, 0, 0]
    assert greedy([2.0, 1.5, 0.0], presence_penalty=1.0) == [0, 1, 0]
    assert greedy([2.0, 1.7, 0.0], frequency_penalty=0.4) == [0, 1, 0]
    assert greedy([2.0, 1.5, 0.0], prompt=(0,), repetition_penalty=1.5) == [1, 0, 0]
    assert greedy([-1.0, -1.2, -9.0], prompt=(0,), repetition_penalty=1.5) == [1, 0, 0]
    assert greedy([2.0, 1.5, 0.0], logit_bias={2: 100.0}) == [2, 2, 2]
    assert greedy([2.0, 1.5, 0.0], prompt=(0,), presence_penalty=2.0)[0] == 0


def test_logprobs_are_of_the_models_own_distribution() -> None:
    logits = torch.tensor([1.0, 2.0, 3.0])
    token = sampler(replace(PLAIN, temperature=0.0, logit_bias={0: 50.0}, top_logprobs=2), size=3).sample(
        logits
    )
    expected = logits.log_softmax(-1)
    assert token.id == 0
    assert token.logprob == pytest.approx(float(expected[0]))
    assert [index for index, _ in token.top] == [2, 1]
    assert math.isclose(token.top[0][1], float(expected[2]), rel_tol=1e-6)
