"""Small tables written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from scrcl_infer.errors import InputError
from scrcl_infer.tables import read_table


def table(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    ["name,id\nB,1\nT,2\n", "\ufeffName, ID \r\nB,1\r\n\r\n T ,2", "more\tid\tname\nx\t1\tB\n\t2\tT\n"],
)
def test_reads_what_people_write(tmp_path: Path, text: str) -> None:
    assert read_table(table(tmp_path, text), ("name", "id")) == [{"name": "B", "id": "1"}, {"name": "T", "id": "2"}]


def test_quotes_and_optional_columns(tmp_path: Path) -> None:
    path = table(tmp_path, 'name,id\n"T, naive",\nB,5\n')
    assert read_table(path, ("name",), ("id", "more")) == [{"name": "T, naive", "id": ""}, {"name": "B", "id": "5"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("B,CL:1\n", "its first line is 'B,CL:1', expected a header such as 'name,id'"),
        ("", "expected a header"),
        ("name,id,name\nB,1,C\n", "expected a header"),
        ("name,id\n", "no rows"),
        ("name,id\nB\n", "row 2 has nothing under id"),
        ("name,id\nT, naive,1\n", "row 2 has 3 values under 2 headings"),
    ],
)
def test_refuses_what_it_cannot_understand(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_table(table(tmp_path, text), ("name", "id"))


def test_refuses_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\x89PNG\xff")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_table(tmp_path / "x.csv", ("name",))
    with pytest.raises(InputError, match="cannot be read as text"):
        read_table(tmp_path / "missing.csv", ("name",))


def test_a_table_with_semicolons_is_told_of_them_and_of_a_header_that_would_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"such as 'population,name', separated by commas or tabs, not semicolons"):
        read_table(table(tmp_path, "population;name\nP1;B\n"), ("name",), example="population,name")
