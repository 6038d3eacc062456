import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.cache.semantic_guards import conflict, read

TEXTS = st.text(max_size=80) | st.lists(
    st.sampled_from(
        [
            "how",
            "do",
            "I",
            "not",
            "sort",
            "3",
            "lists",
            "from",
            "Paris",
            "to",
            "Rome",
            "in",
            "Python",
            "don't",
            "two",
            "enable",
            "disable",
        ]
    )
).map(" ".join)


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ("Book a table for 2", "Book a table for 12", "number"),
        ("Book a table for two", "Book a table for 2 people", None),
        ("What is 1,000 km in miles?", "How many miles are 1000 km?", None),
        ("Python 3.11 changes", "Python 3.12 changes", "number"),
        ("Weather in Paris", "Weather in London", "entity"),
        ("weather in paris", "What is the weather in Paris?", None),
        ("Install it on macOS", "Install it on Windows", "entity"),
        ("Is it safe?", "Isn't it safe?", "negation"),
        ("Cook eggs with milk", "Cook eggs without milk", "negation"),
        ("How do I enable dark mode?", "How do I disable dark mode?", "opposite"),
        ("How far is it from Berlin to Munich?", "How far is it from Munich to Berlin?", "direction"),
        ("Go from Berlin to Munich", "Go to Munich from Berlin", None),
        ("convert miles to kilometres", "convert kilometres to miles", "direction"),
        ("How do I sort a list?", "What's the way to sort lists?", None),
    ],
)
def test_what_makes_another_question(one, other, why):
    assert conflict(read(one), read(other)) == why
    assert conflict(read(other), read(one)) == why


@given(TEXTS, TEXTS)
def test_either_way_round_and_never_against_itself(one, other):
    assert conflict(read(one), read(other)) == conflict(read(other), read(one))
    mine = read(one)
    if not any((after, before) in mine.turns for before, after in mine.turns):
        assert conflict(mine, mine) is None
