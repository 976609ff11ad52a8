"""Whether a file has room for the answers: what of it they would replace, and what must not be replaced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scrcl_infer.columns import ONTOLOGY_COLUMN
from scrcl_infer.earlier import COLUMNS_KEY, TRAINED_KEY, find_stale
from scrcl_infer.errors import OutputError
from scrcl_infer.frames import index_name, text
from scrcl_infer.target import SLOTS, Target

if TYPE_CHECKING:
    import h5py


def check_room(path: Path, columns: tuple[str, ...], target: Target) -> None:
    """Refuse a file whose copy cannot or must not take the answers; parameters and errors as of the two below."""
    import h5py

    with h5py.File(path, "r", locking="best-effort") as file:
        check_layout(file)
        find_replaced(file, columns, target)


def check_layout(file: h5py.File) -> h5py.Group:
    """Return the group `obs`.

    Raises
    ------
    OutputError
        `obs`, `obsm` or `uns` is of a layout that cannot be extended.
    """
    import h5py

    obs = file.get("obs")
    old = [key for key in ("obs", "obsm", "uns") if key in file and not isinstance(file[key], h5py.Group)]
    if old or obs is None:
        msg = (
            f"The input's {', '.join(repr(key) for key in old) or 'obs'} is stored as files older than anndata 0.7 do, "
            "and cannot be extended. Write a table (`-o answers.tsv`), or renew the file first: "
            "python -c \"import anndata; anndata.read_h5ad('OLD.h5ad').write_h5ad('NEW.h5ad')\""
        )
        raise OutputError(msg)
    return obs


def find_replaced(file: h5py.File, columns: tuple[str, ...], target: Target) -> list[tuple[str, str]]:
    """Return what of a file the answers replace, as ('obs', 'obsm' or 'uns', name); nothing is changed.

    Parameters
    ----------
    file
        Of a layout that `check_layout` accepts.
    columns
        Of `obs` that the answers are written to.
    target
        Its prefix tells which columns of an earlier run must not stay; with `force`, what something else wrote may be
        replaced, too.

    Raises
    ------
    OutputError
        Something else wrote one of them and `force` is not set, or one of the columns holds the cells' names.
    """
    obs = file["obs"]
    index = index_name(obs)
    _check_index(index, columns)
    written_before = _read_strings(file, f"uns/{SLOTS.uns}/{COLUMNS_KEY}")
    stale = find_stale(written_before, columns, target.obs_prefix)
    stale = [column for column in stale if column in obs and column != index]
    present = [column for column in columns if column in obs]
    slots = [("obsm", SLOTS.embedding), ("obsm", SLOTS.map), ("uns", SLOTS.uns)]
    slots = [(group, key) for group, key in slots if f"{group}/{key}" in file]
    # Answers can be had again in no time, but what training found cannot.
    free = () if f"uns/{SLOTS.uns}/{TRAINED_KEY}" in file else written_before
    foreign = [f"obs['{column}']" for column in present if column not in free]
    if not free:
        foreign += [f"{group}['{key}']" for group, key in slots]
    if foreign and not target.force:
        ids = " (or leave out --ontology)" if f"obs['{ONTOLOGY_COLUMN}']" in foreign else ""
        msg = (
            f"The input already holds {', '.join(foreign)}, not written by scrcl-assign. "
            f"Choose other column names with --obs-prefix{ids}, or replace what is there in the copy with --force."
        )
        raise OutputError(msg)
    return [("obs", column) for column in present + stale] + slots


def _check_index(index: str, columns: tuple[str, ...]) -> None:
    """Refuse, also with `force`, to replace the cells' names."""
    if index in columns:
        ids = " (or leave out --ontology)" if index == ONTOLOGY_COLUMN else ""
        msg = (
            f"The input's cells are named by the index '{index}' of obs, and the answers have a column of that name. "
            f"Choose other column names with --obs-prefix{ids}, or another name for the index: "
            "`adata.obs.index.name = None`."
        )
        raise OutputError(msg)


def _read_strings(file: h5py.File, path: str) -> list[str]:
    return [text(item) for item in file[path][()]] if path in file else []
