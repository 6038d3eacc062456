"""What the terminal's commands print."""

import pytest
from rich.table import Table

from gateway.commands.tables import print_found, print_table, print_whole

KEY = {
    "id": "key_b653c3a1fbeb1098",
    "tenant": "research and development",
    "models": ["smollm2-*"],
    "limits": {},
}


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")


def test_a_narrow_terminal_cuts_nothing_and_keeps_the_name_in_one_piece(capsys):
    print_table(tuple(KEY), [KEY])
    printed = capsys.readouterr().out
    assert KEY["id"] in printed
    columns = zip(*(line.split("│")[1:-1] for line in printed.splitlines() if "│" in line), strict=True)
    whole = ["".join("".join(cells).split()) for cells in columns]
    assert whole == [KEY["id"], "researchanddevelopment", "smollm2-*", "-"]


def test_one_is_one_object_and_several_are_a_list(capsys):
    print_found({"id": "a"}, ("id",), as_json=True)
    assert capsys.readouterr().out == '{\n  "id": "a"\n}\n'
    print_found([{"id": "a"}], ("id",), as_json=True)
    assert capsys.readouterr().out == '[\n  {\n    "id": "a"\n  }\n]\n'


def test_a_narrow_terminal_gets_a_wide_table_rather_than_cut_figures(capsys):
    table = Table("day", "tokens in", "cost")
    table.add_row("2026-11-23", "123,456,789,012", "≥ $1,234,567.8901")
    print_whole(table)
    printed = capsys.readouterr().out
    assert "123,456,789,012" in printed
    assert "≥ $1,234,567.8901" in printed
    assert "…" not in printed
