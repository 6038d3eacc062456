"""The bundled model of embeddings against transformers' own."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from gateway.cache.semantic.minilm import LONGEST, MiniLm, ModelMissing, folder

TEXTS = [
    "How do I sort a list in Python?",
    "capital of France",
    "A longer one, with commas; and more. " * 5,
    "é 漢",
]


@pytest.fixture(scope="module")
def model():
    return MiniLm(folder())


def test_it_is_the_same_as_the_original(model):
    tokenizer, original = (kind.from_pretrained(str(folder())) for kind in (AutoTokenizer, AutoModel))
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = original(**tokens).last_hidden_state
    mask = tokens.attention_mask[..., None]
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)).numpy()
    assert np.abs(np.stack(model.embed(TEXTS)) - expected).max() < 1e-5


def test_a_text_has_the_same_vector_in_any_company(model):
    together = model.embed(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        (alone,) = model.embed([text])
        assert np.abs(alone - vector).max() < 1e-5


def test_what_would_be_cut_has_no_vector(model):
    fits, too_long = model.embed(["word", "word " * LONGEST])
    assert fits.shape == (384,)
    assert too_long is None


def test_other_weights_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(ModelMissing, match="install"):
        MiniLm(tmp_path)
