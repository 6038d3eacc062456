"""Builds a Hugging Face tokenizer.json from a GGUF's byte-level BPE vocabulary."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from local_backend.errors import WeightsError
from local_backend.weights.gguf import Vocabulary

_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)

# How text is split before BPE, by llama.cpp's name for it (src/llama-vocab.cpp).
_PRE_TOKENIZERS: dict[str, list[pre_tokenizers.PreTokenizer]] = {
    "gpt-2": [_GPT2],
    "smollm": [pre_tokenizers.Digits(individual_digits=True), _GPT2],
}


def build_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """A Tokenizer equal to llama.cpp's for this vocabulary. Raises WeightsError for an unknown split rule."""
    split = _PRE_TOKENIZERS.get(vocabulary.pre)
    if split is None:
        known = ", ".join(_PRE_TOKENIZERS)
        raise WeightsError(f"pre-tokenizer {vocabulary.pre!r} is not known; known are {known}")
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    first, last = zip(*(merge.split(" ", 1) for merge in vocabulary.merges), strict=True)
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=list(zip(first, last, strict=True))))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    control = [vocabulary.tokens[index] for index in vocabulary.control]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer
