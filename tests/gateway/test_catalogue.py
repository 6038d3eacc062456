import pytest

from gateway.catalogue import Catalogue, Entry, model_not_found

NAMES = ["gpt-4*", "gpt-*", "gpt-4-mine", "chat", "o[13]", "x/?"]


def builder(name):
    return lambda asked: Entry(name, asked)


CATALOGUE = Catalogue({name: builder(name) for name in NAMES})


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
    entry = CATALOGUE.find(asked)
    assert (entry and entry.name) == found
    assert CATALOGUE.find(asked) is entry  # remembered


def test_what_serves_a_name_behind_a_glob_is_made_for_that_name():
    assert CATALOGUE.find("gpt-4o").service == "gpt-4o"
    assert CATALOGUE.find("chat").service == "chat"


def test_clients_cannot_fill_the_memory_with_names():
    made = []
    catalogue = Catalogue({"*": lambda asked: made.append(asked) or Entry("*", asked)})
    for number in range(3000):
        catalogue.find(f"m{number}")
    first, last = catalogue.find("m0"), catalogue.find("m2999")
    assert len(made) == 3001
    assert (first.service, last.service) == ("m0", "m2999")


def test_only_plain_names_are_listed_in_their_order():
    assert CATALOGUE.names() == ["gpt-4-mine", "chat"]


def test_the_error_for_an_unknown_model_names_it():
    error = model_not_found("nope")
    assert "'nope'" in error.message
    assert error.param == "model"
