"""Checks a request against the model and makes it a job for the engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from local_backend.engine.request import SamplingParams
from local_backend.engine.structured import Grammar, GrammarCompiler, GrammarError
from local_backend.serve import errors, forms
from local_backend.serve.dialect import ChatDialect, CompletionDialect, Dialect
from local_backend.serve.messages import render
from local_backend.serve.schema import ChatRequest, CompletionRequest, listed
from local_backend.serve.tokenizer import ChatTemplateError, Tokenizer

# OpenAI's default for /v1/completions.
_COMPLETION_TOKENS = 16


@dataclass(frozen=True)
class ModelFacts:
    """What the endpoints need to know of the served model; lengths in tokens."""

    model_id: str
    max_length: int
    default_max_tokens: int
    vocab_size: int
    hidden_size: int
    sampling_defaults: Mapping[str, Any]
    fingerprint: str


@dataclass(frozen=True)
class ServedModel:
    """What turns requests into jobs."""

    facts: ModelFacts
    tokenizer: Tokenizer
    grammars: GrammarCompiler


@dataclass(frozen=True)
class Job:
    """A request ready to run: one prompt and its params a choice.

    Of every `best_of` answers in a row the likeliest `n` are given. Each has the tokens `begun` already, and
    first writes again the last `repeated` bytes of what it goes on from.
    """

    dialect: Dialect
    prompts: Sequence[Sequence[int]]
    params: Sequence[SamplingParams]
    begun: Sequence[int]
    n: int
    best_of: int
    stop: Sequence[str]
    repeated: int
    prompt_tokens: int
    stream: bool
    include_usage: bool


@dataclass(frozen=True)
class _Wanted:
    """What the two endpoints word differently; `param` names the prompt in error messages.

    `begun` are the tokens of the answer's beginning, which comes after the prompts.
    """

    dialect: Dialect
    prompts: Sequence[Sequence[int]]
    begun: Sequence[int]
    best_of: int
    max_tokens: int | None
    default_max_tokens: int
    top_logprobs: int | None
    param: str


def chat_job(request: ChatRequest, model: ServedModel) -> Job:
    """Raises ApiError when the request cannot be run."""
    tokenizer = model.tokenizer
    turns, begun_text = render(request.messages, request.callable_tools)
    try:
        prompt = tokenizer.encode_chat(turns)
    except ChatTemplateError as error:
        raise errors.invalid_request(str(error), "messages") from error
    begun = tokenizer.encode(begun_text)
    top_logprobs = (request.top_logprobs or 0) if request.logprobs else None
    wanted = _Wanted(
        dialect=ChatDialect(tokenizer, top_logprobs is not None, calls_tools=bool(request.callable_tools)),
        prompts=[prompt],
        begun=begun,
        best_of=request.n,
        max_tokens=request.max_completion_tokens or request.max_tokens,
        default_max_tokens=model.facts.default_max_tokens,
        top_logprobs=top_logprobs,
        param="messages",
    )
    return _job(request, model, wanted)


def completion_job(request: CompletionRequest, model: ServedModel) -> Job:
    """Raises ApiError when the request cannot be run."""
    tokenizer = model.tokenizer
    prompts = [tokenizer.encode(each) if isinstance(each, str) else each for each in listed(request.prompt)]
    best_of = request.best_of or request.n
    # The likeliest can only be told by log-probabilities.
    hidden_logprobs = 0 if best_of > request.n else None
    echo = (
        [tokenizer.decode(prompt) for prompt in prompts for _ in range(request.n)] if request.echo else None
    )
    wanted = _Wanted(
        dialect=CompletionDialect(tokenizer, request.logprobs is not None, echo),
        prompts=prompts,
        begun=(),
        best_of=best_of,
        max_tokens=request.max_tokens,
        default_max_tokens=_COMPLETION_TOKENS,
        top_logprobs=hidden_logprobs if request.logprobs is None else request.logprobs,
        param="prompt",
    )
    return _job(request, model, wanted)


def _job(request: ChatRequest | CompletionRequest, model: ServedModel, wanted: _Wanted) -> Job:
    facts = model.facts
    if request.model != facts.model_id:
        raise errors.model_not_found(request.model)
    for prompt in wanted.prompts:
        check_prompt([*prompt, *wanted.begun], wanted.max_tokens, facts, wanted.param)
    if any(token >= facts.vocab_size for token in request.logit_bias or {}):
        raise errors.invalid_request(f"token ids must be below {facts.vocab_size}", "logit_bias")
    limit = wanted.max_tokens or wanted.default_max_tokens
    start = _start(request, model, wanted)
    begun = wanted.begun[: len(wanted.begun) - start.taken_back]
    params = [
        replace(
            _sampling(request, facts, wanted.top_logprobs, choice),
            max_tokens=min(limit + len(wanted.begun), facts.max_length - len(prompt)),
            grammar=start.grammar,
        )
        for prompt in wanted.prompts
        for choice in range(wanted.best_of)
    ]
    return Job(
        dialect=wanted.dialect,
        prompts=[prompt for prompt in wanted.prompts for _ in range(wanted.best_of)],
        params=params,
        begun=begun,
        n=request.n,
        best_of=wanted.best_of,
        stop=request.stop or [],
        repeated=start.repeated,
        prompt_tokens=sum(len(prompt) + len(wanted.begun) for prompt in wanted.prompts),
        stream=request.stream,
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
    )


@dataclass(frozen=True)
class _Start:
    """How answers begin: tokens taken back, and the bytes that are written again for them."""

    grammar: Grammar | None = None
    taken_back: int = 0
    repeated: int = 0


def _start(request: ChatRequest | CompletionRequest, model: ServedModel, wanted: _Wanted) -> _Start:
    """The form of the answer; with none, that it writes the last word of what it goes on from again.

    Only so are its tokens those that it would have had without a break (token healing).
    """
    begun, tokenizer = wanted.begun, model.tokenizer
    form = forms.wanted(request)
    if form is not None:
        try:
            return _Start(model.grammars.compile(form.grammar, begun))
        except GrammarError as error:
            raise errors.invalid_request(f"{form.param}: {error}", form.param) from error
    if not begun:
        return _Start()
    word = begun[tokenizer.last_word(begun) :]
    text = tokenizer.decode(word)
    return _Start(model.grammars.compile(forms.beginning(text)), len(word), len(text.encode()))


def check_prompt(prompt: Sequence[int], wanted: int | None, facts: ModelFacts, param: str) -> None:
    """Raises ApiError when a prompt, with at least `wanted` tokens after it, is nothing for the model."""
    if not prompt:
        raise errors.invalid_request("the prompt is empty", param)
    if any(token >= facts.vocab_size for token in prompt):
        raise errors.invalid_request(f"token ids must be below {facts.vocab_size}", param)
    answer = 1 if wanted is None else wanted
    if len(prompt) + answer > facts.max_length:
        raise errors.context_too_long(
            f"This model's maximum context length is {facts.max_length} tokens, but {len(prompt)} in the "
            f"{param} and {answer} in the completion were requested",
            param,
        )


def _sampling(
    request: ChatRequest | CompletionRequest,
    facts: ModelFacts,
    top_logprobs: int | None,
    choice: int,
) -> SamplingParams:
    defaults = facts.sampling_defaults
    return SamplingParams(
        max_tokens=facts.max_length,
        temperature=_first(request.temperature, defaults.get("temperature"), 1.0),
        top_p=_first(request.top_p, defaults.get("top_p"), 1.0),
        top_k=max(request.top_k or 0, 0),
        min_p=request.min_p or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        repetition_penalty=_first(request.repetition_penalty, defaults.get("repetition_penalty"), 1.0),
        # Choices of one request must differ, and be the same again when the request is.
        seed=None if request.seed is None else request.seed + choice,
        logit_bias=request.logit_bias or {},
        top_logprobs=top_logprobs,
    )


def _first(*values: float | None) -> float:
    return next(float(value) for value in values if value is not None)
