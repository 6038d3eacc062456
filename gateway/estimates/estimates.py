"""Token estimates: what a call will read and write, for limits and for admission.

The prompt is counted by the model's vocabulary and corrected by what upstreams really billed for calls
of this model, which covers what can't be known: closed vocabularies, hidden prompts, how tools are
written out. How much will be written nobody knows: limits reserve what was asked for, admission goes by
what this model's answers took so far.
"""

from collections.abc import Mapping

from gateway.estimates.reading import asked_output, choices, read
from gateway.estimates.vocabularies import Count, count, vocabulary, vocabulary_of
from gateway.settings import ASKED, Model
from policies.service import Call, Estimate, Usage

DEFAULT_OUTPUT = 1024
"""Tokens that an answer is taken to have at most where its client doesn't say."""

_FIRST_GUESS = 256.0
_SMOOTHING = 0.05
_MEMORY = 0.98
_PRIOR = 200.0
_MODELS = 1024


class TokenEstimates:
    """Estimates calls, once each, and learns from what they took. ``declare`` tells the models."""

    def __init__(self) -> None:
        self._targets: Mapping[str, str] = {}
        self._models: dict[str, _Model] = {}

    def declare(self, models: Mapping[str, Model]) -> None:
        """What the configured names lead to; their vocabularies are made ready now, and not by a call."""
        self._targets = {name: model.route[0][0].model for name, model in models.items()}
        for name, target in self._targets.items():
            if target != ASKED:
                self._known(target)
            else:
                vocabulary(vocabulary_of(name))  # which the models behind the glob most probably have

    def __call__(self, call: Call) -> Estimate:
        """The estimate, which stays with the call."""
        estimate = call.estimate
        if estimate is None:
            estimate = call.estimate = self._model(call).estimate(call)
        return estimate

    def learn(self, call: Call, usage: Usage) -> None:
        """A call that was answered at the first attempt took this."""
        estimate = call.estimate
        if estimate is not None and len(call.attempts) == 1:
            self._model(call).learn(estimate, usage, choices(call))

    def errors(self) -> Mapping[str, float]:
        """By how much estimates of prompts were lately off, by model; ``*`` for all that clients name."""
        declared = set(self._targets.values())
        found: dict[str, float] = {}
        for name, model in self._models.items():
            if model.error is not None:
                label = name if name in declared else ASKED
                found[label] = max(model.error, found.get(label, 0.0))
        return found

    def _model(self, call: Call) -> "_Model":
        target = self._targets.get(call.route, ASKED)
        return self._known(call.model if target == ASKED else target)

    def _known(self, target: str) -> "_Model":
        model = self._models.get(target)
        if model is None:
            if len(self._models) >= _MODELS:
                del self._models[next(iter(self._models))]
            model = self._models[target] = _Model(vocabulary(vocabulary_of(target)))
        return model


class _Model:
    """What is known of one model's tokens: sums of what was billed and counted, the older the fainter."""

    __slots__ = ("_billed", "_count", "_counted", "_output", "error")

    def __init__(self, by: Count) -> None:
        self._count = by
        self._billed = self._counted = _PRIOR
        self._output = _FIRST_GUESS
        self.error: float | None = None  # of the input, as a share, smoothed

    def estimate(self, call: Call) -> Estimate:
        reading = read(call)
        answers = choices(call)
        counted = reading.tokens + (count(reading.texts, self._count) if reading.texts else 0)
        asked = asked_output(call)
        most = DEFAULT_OUTPUT * answers if asked is None else asked
        return Estimate(
            input=round(counted * self._billed / self._counted) + reading.media,
            output=most,
            likely_output=min(most, round(self._output * answers)),
            asked=asked,
            counted=counted + reading.media,
            media=reading.media,
        )

    def learn(self, estimate: Estimate, usage: Usage, answers: int) -> None:
        self._output += (usage.output / answers - self._output) * _SMOOTHING
        if usage.input and estimate.counted and not estimate.media:
            error = abs(estimate.input / usage.input - 1)
            self.error = error if self.error is None else self.error + (error - self.error) * _SMOOTHING
            self._billed = self._billed * _MEMORY + usage.input
            self._counted = self._counted * _MEMORY + estimate.counted
