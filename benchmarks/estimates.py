"""How far token estimates are off, and what they cost.

    python benchmarks/estimates.py

Texts of five kinds, cut into prompts of several lengths, are estimated as the gateway does it and counted
in full by the vocabulary of the model. Where a model's vocabulary isn't known another one stands in: that
is measured with models whose vocabulary is known, by hiding it, before and after 50 calls from which the
gateway learns; the calls are English and code. A model that gets other kinds in turn wanders further.
"""

import json
import sys
import time
from pathlib import Path
from random import Random
from statistics import median

from gateway.estimates import TokenEstimates
from gateway.estimates.vocabularies import vocabulary
from policies.service import Attempt, Call, Operation, Usage

ROOT = Path(__file__).parents[1]
LENGTHS = (200, 2_000, 20_000, 200_000)
STANDING_IN = ("cl100k_base", "llama3", "qwen3", "deepseek_v3", "mistral_v3", "glm4")
CALLS = 50
FRAME = 7


def texts() -> dict[str, str]:
    """Long texts by kind."""
    sys.path.insert(0, str(ROOT))
    from tests.gateway.estimates.labelled import CHINESE, GERMAN  # noqa: PLC0415 - found from here on

    random = Random(1)
    rows = [{"id": random.getrandbits(40), "price": random.random(), "tags": ["a", "b"]} for _ in range(4000)]
    sentences = [part for part in CHINESE.replace("，", "。").split("。") if part]  # noqa: RUF001 - Chinese
    german = [part for part in GERMAN.split(" ") if part]
    return {
        "English": "".join(path.read_text() for path in sorted(ROOT.glob("docs/**/*.md"))),
        "German": " ".join(random.choices(german, k=40_000)),
        "Chinese": "。".join(random.choices(sentences, k=10_000)),
        "code": "".join(path.read_text() for path in sorted(ROOT.glob("policies/*.py"))),
        "JSON": json.dumps(rows),
    }


def prompts(text: str, length: int, random: Random) -> list[str]:
    """Twenty pieces of a text."""
    starts = [random.randrange(max(1, len(text) - length)) for _ in range(20)]
    return [text[start : start + length] for start in starts]


def call(prompt: str) -> Call:
    """A chat of one message."""
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
    return Call("req", Operation.CHAT, "m", body, attempts=[Attempt("up", "m")])


def measure(kinds: dict[str, str]) -> None:
    """Print error and cost with the right vocabulary."""
    estimates, exact = TokenEstimates(), vocabulary("o200k_base")
    for kind, text in kinds.items():
        shown = []
        for length in LENGTHS:
            errors, costs = [], []
            for prompt in prompts(text, length, Random(3)):
                asked = call(prompt)
                began = time.process_time()
                found = estimates(asked).input - FRAME
                costs.append(time.process_time() - began)
                errors.append(abs(found / exact(prompt) - 1))
            shown.append(
                f"{length}: {median(errors):.1%} (worst {max(errors):.1%}), {median(costs) * 1e6:.0f} us"
            )
        print(f"{kind}: " + "; ".join(shown))


def learn(kinds: dict[str, str]) -> None:
    """Print the error with another vocabulary, of the first calls and of the last."""
    for name in STANDING_IN:
        real, random = vocabulary(name), Random(5)
        estimates = TokenEstimates()
        before, after = [], []
        for number in range(2 * CALLS):
            kind = random.choice(("English", "code"))
            prompt = prompts(kinds[kind], random.choice(LENGTHS[:3]), random)[0]
            asked = call(prompt)
            billed = real(prompt) + FRAME
            error = estimates(asked).input / billed - 1
            (before if number < CALLS // 5 else after if number >= CALLS else []).append(abs(error))
            estimates.learn(asked, Usage(billed, 100))
        print(f"{name}, estimated as o200k_base: {median(before):.1%} at first, {median(after):.1%} later")


if __name__ == "__main__":
    found = texts()
    measure(found)
    learn(found)
