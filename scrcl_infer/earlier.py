"""What an earlier run of training or assigning left in `obs`: its columns beside new answers would contradict them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from scrcl_infer.columns import ONTOLOGY_COLUMN
from scrcl_infer.target import DEFAULT_PREFIX, SLOTS

if TYPE_CHECKING:
    from anndata import AnnData

COLUMNS_KEY = "obs_columns"
"""In `uns['scrcl']`: the obs columns that were written, so that a later run may replace them."""
TRAINED_KEY = "preset"
"""In `uns['scrcl']` of the copies that training writes, and in no others."""


def find_stale(written: Iterable[str], columns: Collection[str], prefix: str) -> list[str]:
    """Return the columns of an earlier run that this one does not replace and that must not stay, sorted.

    Parameters
    ----------
    written
        Columns of `obs` that the earlier run wrote, as its `uns['scrcl']` lists them. No others are ever returned.
    columns
        Columns that this run writes.
    prefix
        Of this run's columns. Those of an earlier run with another prefix may stay, but for the ontology ids, which
        take no prefix.
    """
    others = sorted(set(written) - set(columns))
    return [column for column in others if column.startswith(prefix) or column == ONTOLOGY_COLUMN]


def drop_stale(adata: AnnData, columns: Collection[str], *, prefix: str = DEFAULT_PREFIX) -> list[str]:
    """Remove an earlier run's columns from `obs`, and return their names; see `find_stale`.

    Parameters
    ----------
    adata
        Changed in place; its `uns['scrcl']` is still the earlier run's.
    columns, prefix
        Of this run.
    """
    about = adata.uns.get(SLOTS.uns)
    written = np.atleast_1d(about.get(COLUMNS_KEY, ())) if isinstance(about, Mapping) else ()
    stale = [column for column in find_stale(map(str, written), columns, prefix) if column in adata.obs.columns]
    if stale:
        adata.obs = adata.obs.drop(columns=stale)
    return stale
