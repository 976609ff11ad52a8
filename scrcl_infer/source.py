"""What every input offers, be it a file on disk or an AnnData in memory. Protocols only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Encoding = Literal["csr", "csc", "dense"]


class Part(NamedTuple):
    """A run of whole rows as a matrix hands them out; its length is the matrix's choice, not the caller's."""

    start: int
    """Index of the first row."""
    rows: csr_matrix | NDArray[np.float32]
    """(n, n_genes) float32; a `csr_matrix` has int32 indices, maybe unsorted."""


class MatrixHandle(Protocol):
    """One matrix of a source: cells by genes."""

    @property
    def where(self) -> str:
        """'X', 'layers/NAME' or 'raw/X'."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n_cells, n_genes)."""

    @property
    def encoding(self) -> Encoding:
        """How it is stored."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored values; what is read is float32."""

    def read_rows(self, start: int, stop: int) -> csr_matrix:
        """Return rows `start:stop` as (stop - start, n_genes) float32; meant for looking at a few."""

    def iter_parts(self, *, threads: int) -> Iterator[Part]:
        """Yield all rows in order, in parts whose borders depend on the matrix alone."""


class Source(Protocol):
    """Cells with names, genes with names, and matrices. A context manager."""

    path: Path | None
    n_cells: int
    n_genes: int

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def close(self) -> None:
        """Close files and remove temporary ones."""

    def obs_names(self) -> NDArray[np.object_]:
        """(n_cells,) str."""

    def obs_keys(self) -> tuple[str, ...]:
        """Names of the columns of `obs`."""

    def obs_column(self, key: str) -> NDArray[Any]:
        """(n_cells,) values of a column of `obs`: str objects (missing: None) or numbers (missing: NaN)."""

    def var_names(self, where: str = "X") -> NDArray[np.object_]:
        """(n_genes,) str, the names of the matrix's columns."""

    def var_keys(self, where: str = "X") -> tuple[str, ...]:
        """Names of the columns of `var` that belong to the matrix."""

    def var_column(self, key: str, where: str = "X") -> NDArray[Any]:
        """(n_genes,) values of a column of `var`."""

    def obsm_keys(self) -> tuple[str, ...]:
        """Names of the arrays in `obsm`."""

    def obsm(self, key: str) -> NDArray[Any]:
        """(n_cells, k) array, e.g. 'spatial'."""

    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""

    def matrices(self) -> tuple[str, ...]:
        """Every matrix there is: 'X', 'layers/NAME', 'raw/X'."""

    def matrix(self, where: str) -> MatrixHandle:
        """Open one matrix."""
