"""Listings: cutting cells, leaving out columns, and using a second line on a narrow terminal."""

from __future__ import annotations

import pytest

from midwatch.workers.cli.tables import Column, lay_out, print_card, print_table

COLUMNS = (Column("ID"), Column("N", "right", "spare"), Column("EMPTY"), Column("WHY", kind="long"))
ROWS = (("job-" + "0" * 30, "7", "", "because of " + "reasons " * 20), ("job-2", "12", "", ""))


def plain(width: int) -> list[str]:
    """Return the lines without colours."""
    return [line.plain for line in lay_out(COLUMNS, ROWS, width)]


def test_an_empty_column_is_left_out():
    """Its title is not printed."""
    assert plain(120)[0].split() == ["ID", "N", "WHY"]


def test_ids_are_never_cut_and_reasons_are():
    """The long column gets the rest of the width. Cells that people copy are never cut."""
    _, first, second = plain(90)
    assert first.startswith("job-" + "0" * 30)
    assert first.endswith("…")
    assert len(first) <= 90
    assert second == "job-2".ljust(36) + "12"


def test_a_spare_column_is_left_out_to_make_room_for_the_reason():
    """At 77 columns the number is left out and the reason stays on its line."""
    title, first, _ = plain(77)
    assert title.split() == ["ID", "WHY"]
    assert "because" in first


def test_a_narrow_terminal_has_the_reason_on_the_next_line():
    """The spare column stays, because leaving it out would not make enough room."""
    title, first, below, second = plain(60)
    assert title.split() == ["ID", "N"]
    assert first.split() == ["job-" + "0" * 30, "7"]
    assert below.startswith("    because of")
    assert len(below) == 60
    assert second.split() == ["job-2", "12"]


@pytest.mark.parametrize("width", [10, 20, 36, 40, 79, 200])
def test_no_line_is_longer_than_the_terminal(width):
    """Rows never wrap. Wide characters count twice."""
    wide = ((ROWS[0][0], "1", "", "漢字" * 60),)
    assert all(line.cell_len <= width for line in lay_out(COLUMNS, wide, width))


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_a_whole_table_wraps_advice_and_cuts_nothing(width):
    """Every word of the reason is shown, and no line is longer than the terminal."""
    lines = lay_out(COLUMNS, ROWS, width, whole=True)
    assert all(line.cell_len <= max(width, 36) for line in lines)
    assert ROWS[0][3].split() == [
        word for line in lines[1:] for word in line.plain.split() if word in ROWS[0][3].split()
    ]


def test_the_last_cell_of_a_whole_table_wraps_below_itself():
    """A check with many findings is read to its end."""
    columns = (Column("CHECK"), Column("FOUND"))
    rows = [("agents", "one, two, three, four, five, six, seven")]
    assert [line.plain for line in lay_out(columns, rows, 30, whole=True)][1:] == [
        "agents  one, two, three, four,",
        "        five, six, seven",
    ]


def test_a_pipe_gets_tab_separated_values_uncut(capsys):
    """There is a header and one line per row, with all columns uncut. Tabs and controls in a cell are replaced."""
    print_table(COLUMNS, (("a\tb", "1", "", "x\n\x1b[31m" + "y" * 300),), empty="none")
    out = capsys.readouterr()
    assert out.out == "ID\tN\tEMPTY\tWHY\na b\t1\t\tx \\x1b[31m" + "y" * 300 + "\n"
    assert out.err == ""


def test_an_empty_listing_prints_a_message_on_stderr(capsys):
    """Stdout stays empty, so a script counts no rows."""
    print_table(COLUMNS, (), empty="nothing here")
    assert capsys.readouterr() == ("", "nothing here\n")


def test_a_card_leaves_out_empty_values(capsys):
    """Each name and value is one line."""
    print_card([("job", "j"), ("tenant", ""), ("output", "two\nlines")])
    assert capsys.readouterr().out == "job\tj\noutput\ttwo lines\n"
