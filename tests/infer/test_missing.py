"""`scrcl_infer.missing`: what stands in for genes that nearly every cell has, against numpy and the whole file."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scrcl_infer.encoder import Encoder
from scrcl_infer.missing import find_stand_ins
from scrcl_infer.pipeline import Model
from scrcl_infer.result import AssignOptions
from scrcl_infer.strangeness import Spaces, compute_strangeness, refer
from tests.make_bundle import numpy_forward, onnx_model, random_weights, tiny_bundle

N_GENES = 40
EVERYWHERE = 4
"""The first genes of the model, which every class shows."""
WEIGHTS = random_weights() | {
    "w_rarity": np.concatenate([np.full((EVERYWHERE, 4), 3.0), np.full((N_GENES - EVERYWHERE, 4), 40.0)]).astype("f4")
}


def model(**changes: object) -> Model:
    bundle = tiny_bundle()
    assert bundle.rejection is not None
    manifest = replace(bundle.manifest, genes=replace(bundle.manifest.genes, **changes))
    rejection = replace(bundle.rejection, rarity=WEIGHTS["w_rarity"].astype(np.uint8))
    encoder = onnx_model(WEIGHTS, manifest.contract_id)
    return Model(replace(bundle, manifest=manifest, encoder=encoder, rejection=rejection), sha256="", threads=1)


def whole_file(n: int = 150, seed: int = 0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    shares = np.array([*tiny_bundle().manifest.genes.count_shares, 0.4])
    counts = rng.poisson(rng.uniform(100, 900, n)[:, None] * shares).astype(np.float32)
    var = pd.DataFrame(index=[*(f"GENE{i}" for i in range(N_GENES)), "OTHER"])
    return ad.AnnData(sp.csr_matrix(counts), obs=pd.DataFrame(index=[f"c{i}" for i in range(n)]), var=var)


def test_stand_ins_are_for_missing_genes_that_all_classes_show() -> None:
    bundle = model().bundle
    found = np.arange(N_GENES) >= 2
    stand_ins = find_stand_ins(bundle, found, chosen=False)
    assert stand_ins is not None
    assert stand_ins.genes.tolist() == [0, 1]
    np.testing.assert_allclose(stand_ins.shares, bundle.manifest.genes.count_shares[:2], rtol=1e-6)
    assert find_stand_ins(bundle, np.ones(N_GENES, bool), chosen=False) is None
    assert find_stand_ins(bundle, np.arange(N_GENES) != 9, chosen=False) is None  # not one that every class shows
    assert find_stand_ins(model(count_shares=()).bundle, found, chosen=True) is None
    few = np.arange(N_GENES) >= 25
    assert find_stand_ins(bundle, few, chosen=False) is None
    assert find_stand_ins(bundle, few, chosen=True) is not None
    assert find_stand_ins(replace(bundle, rejection=None), found, chosen=True) is None


@pytest.mark.parametrize("n_missing", [2, 4])
def test_answers_are_those_of_the_filled_counts_and_of_the_genes_shown(n_missing: int) -> None:
    cut = whole_file()[:, n_missing:].copy()
    cut.X[5] = 0
    used = model()
    answers = used.assign(cut)
    shares = np.array(used.manifest.genes.count_shares)
    own = np.zeros((cut.n_obs, N_GENES), np.float32)
    own[:, n_missing:] = cut.X.toarray()[:, :-1]
    library = np.asarray(cut.X.sum(axis=1), dtype=np.float64)
    if n_missing == 4:  # more than an eighth of the counts in the model's genes
        library = np.maximum(library, own.sum(axis=1, keepdims=True) / shares[n_missing:].sum())
    filled = own.copy()
    filled[:, :n_missing] = library * shares[:n_missing]
    expected = numpy_forward(WEIGHTS, filled, library.astype(np.float32))
    full = np.arange(cut.n_obs) != 5
    np.testing.assert_allclose(answers.embedding[full], expected["embedding"][full], atol=1e-5)
    assert answers.cell_type[5] == "unknown"

    output = Encoder(used.bundle.encoder, threads=1).run(filled, library.astype(np.float32))
    assert output.components is not None
    assert output.log_type_posterior is not None
    assert used.bundle.rejection is not None
    rarity = ((own > 0) @ WEIGHTS["w_rarity"]).astype(np.float32)
    spaces = Spaces(output.embedding, output.components, rarity, output.log_type_posterior)
    found = np.arange(N_GENES) >= n_missing
    strange = compute_strangeness(spaces, np.count_nonzero(own, axis=1), refer(used.bundle.rejection, found))
    np.testing.assert_allclose(answers.strangeness[full], strange[full], rtol=1e-5, atol=1e-5)
    assert (answers.summary.genes.count_share is not None) == (n_missing == 4)


def test_answers_are_nearer_to_those_for_the_whole_file_and_block_size_leaves_no_trace() -> None:
    whole = whole_file()
    cut = whole[:, EVERYWHERE:].copy()
    right = model().assign(whole).embedding
    filled, zeros = (used.assign(cut) for used in (model(), model(count_shares=())))
    assert np.linalg.norm(filled.embedding - right) < 0.6 * np.linalg.norm(zeros.embedding - right)
    again = model().assign(cut, options=AssignOptions(block_size=11))
    np.testing.assert_array_equal(again.embedding, filled.embedding)
    np.testing.assert_array_equal(again.strangeness, filled.strangeness)


def test_it_is_said_which_genes_are_missing() -> None:
    answers = model().assign(whole_file()[:, 3:].copy())
    assert answers.summary.genes.stand_ins == ("GENE0", "GENE1", "GENE2")
    (warning,) = (text for text in answers.summary.warnings if "stands in" in text)
    assert "missing (GENE0, GENE1, GENE2)" in warning
    assert not model().assign(whole_file()).summary.warnings
