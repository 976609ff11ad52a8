"""Small tables that users write by hand: CSV or TSV with a header."""

from __future__ import annotations

import csv
from pathlib import Path

from scrcl_infer.errors import InputError


def read_table(
    path: Path, needed: tuple[str, ...], optional: tuple[str, ...] = (), *, example: str = ""
) -> list[dict[str, str]]:
    """Read the named columns of a table.

    Parameters
    ----------
    path
        UTF-8, separated by tabs where the header holds one, else by commas. Columns of other names are passed over.
    needed
        Names that the header must hold, in small letters; its own spelling may differ in case.
    optional
        Names that it may hold.
    example
        A header that would do, for the refusal of another; the needed names where none is given.

    Returns
    -------
    list of dict
        One for each row that is not empty, without spaces around the values; an optional column that the table lacks
        is missing from all of them.

    Raises
    ------
    InputError
        The file cannot be read as text, its header lacks a column or holds one twice, a row is longer than the header,
        a needed value is empty, or there is no row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read as text ({error}). Expected a CSV or TSV file."
        raise InputError(msg) from error
    lines = text.splitlines()
    expected = example or ",".join(needed)
    rows = list(csv.reader(lines, delimiter="\t" if lines and "\t" in lines[0] else ","))
    header = [name.strip().lower() for name in rows[0]] if rows else []
    wanted = [name for name in (*needed, *optional) if name in header]
    if not set(needed) <= set(header) or any(header.count(name) > 1 for name in wanted):
        msg = f"{path}: its first line is {lines[0] if lines else ''!r:.80}, expected a header such as '{expected}'"
        msg += ", separated by commas or tabs, not semicolons." if lines and ";" in lines[0] else "."
        raise InputError(msg)
    found = []
    for number, row in enumerate(rows[1:], start=2):
        values = [value.strip() for value in row]
        if not any(values):
            continue
        if len(values) > len(header):
            found_here = f"row {number} has {len(values)} values under {len(header)} headings"
            msg = f"{path}: {found_here}. Quote values that hold the separator."
            raise InputError(msg)
        filled = dict(zip(header, values + [""] * (len(header) - len(values)), strict=True))
        if empty := [name for name in needed if not filled[name]]:
            msg = f"{path}: row {number} has nothing under {', '.join(empty)}. Fill it in, or remove the row."
            raise InputError(msg)
        found.append({name: filled[name] for name in wanted})
    if not found:
        msg = f"{path}: holds a header and no rows. Expected rows under '{expected}'."
        raise InputError(msg)
    return found
