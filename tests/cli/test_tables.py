"""Tables for people, at the width that there is."""

import io

from rich.console import Console, RenderableType

from servolt.cli.tables import labelled, table

COLUMNS = ["metric", "load", "predicted [90 % interval]>", "verdict"]
ROWS = [
    ["output_throughput", "c=1", "1,793 tokens/s [1,062, 3,028]", "undecided"],
    ["cpu_seconds_per_output_token", "c=4", "429 us [254 us, 724 us]", "same"],
]


def drawn(part: RenderableType, width: int) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=width, color_system=None, highlight=False, markup=False).print(part)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_with_room_each_row_is_a_line() -> None:
    lines = drawn(table(COLUMNS, ROWS), 120)
    assert len(lines) == 3
    assert lines[1].split() == [*ROWS[0][:2], *ROWS[0][2].split(), ROWS[0][3]]


def test_without_room_the_wide_columns_are_wrapped_and_all_of_it_is_there() -> None:
    for width in (70, 60, 50):
        lines = drawn(table(COLUMNS, ROWS), width)
        assert max(map(len, lines)) <= width
        assert "".join("".join(lines).split()).count("undecided") == 1
        assert any("[1,062, 3,028]" in line for line in lines), "an interval stays in one piece"
        assert any(line.endswith("verdict") for line in lines)


def test_names_are_cut_behind_their_underscores_only() -> None:
    lines = drawn(table(COLUMNS, ROWS), 50)
    parts = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    assert {"output_", "throughput"} <= set(parts)
    assert {"cpu_seconds_", "per_output_"} <= set(parts)


def test_where_nothing_helps_each_row_is_a_paragraph() -> None:
    lines = drawn(table(COLUMNS, ROWS), 24)
    assert lines[0] == "output_throughput"
    assert "  load: c=1" in lines
    assert "  verdict: undecided" in lines
    words = " ".join(lines).split()
    assert {"[1,062,", "3,028]", "724"} <= set(words)


def test_a_table_without_rows_is_its_heading() -> None:
    assert drawn(table(["name", "size>"], []), 40) == ["name  size"]


def test_a_labelled_sentence_goes_on_below_itself() -> None:
    lines = drawn(labelled("basis", "measured by doctor on a day in the past"), 30)
    assert lines == ["basis       measured by doctor", "            on a day in the", "            past"]
    assert drawn(labelled("a label longer than its columns", "text"), 60) == ["a label longer than its columns text"]
