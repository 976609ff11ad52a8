"""Every disagreement between the parts of a bundle is found, and named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scrcl_infer.bundle import read_bundle, write_bundle
from scrcl_infer.consistency import check_consistent
from scrcl_infer.contract import FILES, Bundle
from scrcl_infer.errors import BundleIntegrityError
from tests.make_bundle import tiny_bundle


def change(bundle: Bundle, path: str, value: Any) -> Bundle:
    """Return a copy with one attribute, named by its path, set to another value."""
    head, _, rest = path.partition(".")
    inner = getattr(bundle, head)
    if rest:
        value = change(inner, rest, value)
    return dataclasses.replace(bundle, **{head: value})


@pytest.mark.parametrize("options", [{}, {"n_types": 0}, {"dim": 1, "n_populations": 1, "n_types": 1}])
def test_accepts_what_fits(options: dict[str, Any]) -> None:
    check_consistent(tiny_bundle(**options))


def test_a_bundle_needs_no_reference_for_rejection(tmp_path: Path) -> None:
    bare = dataclasses.replace(tiny_bundle(), rejection=None)
    folder = write_bundle(bare, tmp_path / "model")
    assert not (folder / FILES.rejection).exists()
    assert read_bundle(folder).rejection is None


def test_answers_of_held_out_cells_fit_a_bundle_without_type_head_only() -> None:
    blind = tiny_bundle(n_types=0)
    assert blind.held_out is not None
    wrong = {
        "log_posterior is float32 (40, 4), expected float32 (40, 5)": {"log_posterior": np.zeros((40, 4), np.float32)},
        "within is bool (39), expected bool (40)": {"within": np.ones(39, dtype=bool)},
        "population goes beyond 0 to 4": {"population": np.full(40, 5)},
        "holds values that are not finite": {"log_posterior": np.full((40, 5), -np.inf, np.float32)},
    }
    for text, arrays in wrong.items():
        with pytest.raises(BundleIntegrityError) as caught:
            check_consistent(change(blind, "held_out", dataclasses.replace(blind.held_out, **arrays)))
        assert text in str(caught.value).replace(",)", ")")
    with pytest.raises(BundleIntegrityError, match="expected none with a type head"):
        check_consistent(change(tiny_bundle(), "held_out", blind.held_out))


TINY = tiny_bundle()
MANIFEST, GRAPH, GOLDEN = TINY.manifest, TINY.gene_graph, TINY.golden
WRONG: dict[str, tuple[str, Any, str]] = {
    "genes: symbols": ("manifest.genes.symbols", ("A",), "genes.symbols has 1 entries, expected 40"),
    "genes: ids": ("manifest.genes.ensembl_ids", (), "genes.ensembl_ids has 0 entries"),
    "genes: evidence": ("manifest.genes.evidence", (1.0,), "genes.evidence has 1 entries"),
    "genes: evidence sum": ("manifest.genes.evidence", (0.5,) * 40, "genes.evidence sums to 20.0"),
    "genes: evidence sign": ("manifest.genes.evidence", (-1.0, 2.0) + (0.0,) * 38, "non-negative"),
    "genes: shares": ("manifest.genes.count_shares", (0.1,), "genes.count_shares has 1 entries"),
    "genes: shares sign": ("manifest.genes.count_shares", (-0.1,) + (0.1,) * 39, "holds negative numbers"),
    "genes: shares nan": ("manifest.genes.count_shares", (0.1,) * 39 + (float("nan"),), "not finite"),
    "genes: evidence nan": ("manifest.genes.evidence", (float("nan"),) * 40, "genes.evidence sums to nan"),
    "genes: twice": ("manifest.genes.names", ("A",) * 40, "holds a name twice"),
    "populations": ("manifest.populations", MANIFEST.populations[:4], "populations has 4 entries, expected 5"),
    "types": ("manifest.encoder.n_types", 3, "cell_types has 4 entries, expected 3"),
    "types: twice": ("manifest.cell_types", MANIFEST.cell_types[:1] * 4, "names that differ"),
    "types: unknown": (
        "manifest.cell_types",
        (*MANIFEST.cell_types[:3], dataclasses.replace(MANIFEST.cell_types[3], name="unknown")),
        "none of them 'unknown'",
    ),
    "types: stranger": (
        "manifest.populations",
        (dataclasses.replace(MANIFEST.populations[0], cell_type="unheard of"), *MANIFEST.populations[1:]),
        "'unheard of'",
    ),
    "temperature": ("manifest.calibration.temperature", 0.0, "temperature is 0.0"),
    "temperature nan": ("manifest.calibration.temperature", float("nan"), "temperature is nan"),
    "threshold": ("manifest.calibration.threshold", float("inf"), "threshold is inf"),
    "centroids: dtype": ("centroids.centroids", np.zeros((5, 8)), "float64 (5, 8), expected float32 (5, 8)"),
    "radii": ("centroids.radii", np.zeros((5, 1), np.float32), "radii is float32 (5, 1), expected float32 (5)"),
    "graph: rows": ("gene_graph.indptr", GRAPH.indptr[:-1], "gene_graph.npz/indptr is int64 (40)"),
    "graph: order": ("gene_graph.indptr", GRAPH.indptr[::-1].copy(), "does not rise from 0 to 120"),
    "graph: end": ("gene_graph.indptr", GRAPH.indptr * 2, "does not rise from 0 to 120"),
    "graph: range": ("gene_graph.indices", GRAPH.indices + 1, "expected 0 to 39"),
    "graph: sign": ("gene_graph.indices", GRAPH.indices - 1, "expected 0 to 39"),
    "graph: dtype": ("gene_graph.indices", GRAPH.indices.astype(np.int32), "indices is int32"),
    "graph: correlations": ("gene_graph.correlations", GRAPH.correlations[1:], "expected float32 (120)"),
    "graph: embedding": ("gene_graph.embedding", GRAPH.embedding[1:], "expected float32 (40, any)"),
    "graph: association": ("gene_graph.association", GRAPH.association.T.copy(), "association is float32 (40, 5)"),
    "golden: genes": ("golden.counts", GOLDEN.counts[:, 1:], "golden.npz/counts is float32 (32, 39)"),
    "golden: library": ("golden.library_size", GOLDEN.library_size[1:], "library_size is float32 (31, 1)"),
    "golden: types": ("golden.log_type_posterior", GOLDEN.map, "log_type_posterior is float32 (32, 2)"),
    "rejection: dtype": ("rejection.limit", np.zeros((2, 2)), "limit is float64 (2, 2), expected float32 (2, 2)"),
    "rejection: width": ("rejection.median", np.zeros((2, 2), np.float32), "median is float32 (2, 2), expected"),
    "rejection: knots": ("rejection.log_detected", np.zeros(2, np.float32), "log_detected does not rise"),
    "rejection: spread": ("rejection.spread", np.zeros((2, 2, 5), np.float32), "spread is not above 0"),
    "rejection: overlaps": ("rejection.overlap", np.ones(2, np.float32), "overlap does not rise"),
    "rejection: rarity": (
        "rejection.rarity",
        np.zeros((39, 4), np.uint8),
        "rarity is uint8 (39, 4), expected uint8 (40, 4)",
    ),
    "rejection: nan": ("rejection.limit", np.full(2, np.nan, np.float32), "limit is empty or holds values"),
    "golden: flat": ("golden.embedding", GOLDEN.embedding.ravel(), "embedding is float32 (256), expected"),
}


@pytest.mark.parametrize(("path", "value", "text"), WRONG.values(), ids=WRONG)
def test_names_what_does_not_fit(path: str, value: Any, text: str) -> None:
    with pytest.raises(BundleIntegrityError) as caught:
        check_consistent(change(TINY, path, value))
    assert text in str(caught.value).replace(",)", ")")


def test_lists_all_that_does_not_fit() -> None:
    bundle = change(TINY, "manifest.calibration.temperature", -1.0)
    bundle = change(bundle, "centroids.radii", np.zeros(3, np.float32))
    with pytest.raises(BundleIntegrityError, match=r"temperature is -1\.0.*; centroids\.npz/radii"):
        check_consistent(bundle)
