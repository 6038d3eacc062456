import pytest

from gateway.catalogue import Catalogue, Entry, model_not_found


def entry(name):
    return Entry(name, object(), 60.0)


CATALOGUE = Catalogue([entry(name) for name in ["gpt-4*", "gpt-*", "gpt-4-mine", "chat", "o[13]", "x/?"]])


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("chat", "chat"),
        ("gpt-4-mine", "gpt-4-mine"),
        ("gpt-4o", "gpt-4*"),
        ("gpt-5", "gpt-*"),
        ("o1", "o[13]"),
        ("o2", None),
        ("x/y", "x/?"),
        ("x/yz", None),
        ("Chat", None),
        ("", None),
        ("gpt-4*", "gpt-4*"),
    ],
)
def test_a_plain_name_comes_first_and_then_the_first_glob(asked, found):
    for _ in range(2):  # found, and remembered
        entry = CATALOGUE.find(asked)
        assert (entry and entry.name) == found


def test_only_plain_names_are_listed_in_their_order():
    assert CATALOGUE.names() == ["gpt-4-mine", "chat"]


def test_the_error_for_an_unknown_model_names_it():
    error = model_not_found("nope")
    assert "'nope'" in error.message
    assert error.param == "model"
