"""Answers into an AnnData in memory, under the names that `scrcl-assign` gives them in a file."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.columns import CONFIDENCE, ONTOLOGY_COLUMN, STRANGENESS
from scrcl_infer.contract import UNKNOWN
from scrcl_infer.earlier import COLUMNS_KEY, drop_stale
from scrcl_infer.errors import InputError
from scrcl_infer.result import Assignment, Summary
from scrcl_infer.target import DEFAULT_PREFIX, SLOTS, STDOUT, Target

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import Categorical


def apply_assignment(
    adata: AnnData, answers: Assignment, *, obs_prefix: str = DEFAULT_PREFIX, ontology: bool = False
) -> None:
    """Add answers to the AnnData that they were given for: `obs` columns, `obsm` matrices and `uns['scrcl']`.

    Columns that an earlier run wrote under the same prefix, e.g. of another model's levels, are removed.

    Parameters
    ----------
    adata
        Changed in place; its cells must be those of `answers`, in the same order.
    answers
        What `Model.assign` returned.
    obs_prefix
        Put before the names of the columns, as `Target.obs_prefix` is.
    ontology
        Write `cell_type_ontology_term_id` too, as CELLxGENE's schema wants it.

    Raises
    ------
    InputError
        The cells are others, or in another order; or the answers have no ontology ids.
    """
    names = np.asarray(adata.obs_names, dtype=object)
    if not np.array_equal(names, answers.obs_names):
        msg = (
            f"The answers are for {len(answers.obs_names):,} other cells than the AnnData's {len(names):,}, or in "
            "another order. Assign this AnnData itself, or subset both alike."
        )
        raise InputError(msg)
    if ontology and answers.ontology_id is None:
        msg = "The model's types have no ontology ids. Leave out `ontology`, or give ids with `scrcl-models name`."
        raise InputError(msg)
    columns = Target(STDOUT, obs_prefix=obs_prefix).columns
    adata.obs[columns.cell_type] = _categorical(answers.cell_type)
    adata.obs[columns.population] = _categorical(answers.population)
    adata.obs[columns.confidence] = answers.confidence
    adata.obs[columns.margin] = answers.margin
    written = list(columns)
    if answers.strangeness is not None:
        adata.obs[obs_prefix + STRANGENESS] = answers.strangeness
        written.append(obs_prefix + STRANGENESS)
    for key, names in answers.levels.items():
        adata.obs[obs_prefix + key] = _categorical(names)
        adata.obs[obs_prefix + key + CONFIDENCE] = answers.level_confidence[key]
        written += [obs_prefix + key, obs_prefix + key + CONFIDENCE]
    if ontology and answers.ontology_id is not None:
        adata.obs[ONTOLOGY_COLUMN] = _categorical(answers.ontology_id)
        written.append(ONTOLOGY_COLUMN)
    drop_stale(adata, written, prefix=obs_prefix)
    adata.obsm[SLOTS.embedding] = answers.embedding
    adata.obsm[SLOTS.map] = answers.map
    adata.uns[SLOTS.uns] = _describe(answers.summary, written)


def _describe(summary: Summary, written: list[str]) -> dict[str, object]:
    """Return how the answers came about, as `Model.describe` does, and the columns of `obs` that hold them."""
    model, vote = summary.extra.get("model", {}), summary.extra.get("vote")
    return {
        "model": model.get("name", UNKNOWN),
        "model_sha256": model.get("sha256", UNKNOWN),
        "model_created_by": model.get("created_by", UNKNOWN),
        "matrix": summary.matrix.where,
        "matrix_state": summary.matrix.state,
        "genes_matched_by": summary.genes.matched_by,
        "n_genes_found": summary.genes.n_found,
        "n_genes_model": summary.genes.n_model,
        "gene_overlap": summary.genes.weighted_overlap,
        **({} if summary.genes.count_share is None else {"count_share": summary.genes.count_share}),
        "n_unknown": summary.n_unknown,
        **asdict(summary.rejection),
        **({"vote": True, "vote_neighbors": vote["n_neighbors"]} if vote else {}),
        "cell_types": model.get("cell_types", []),
        COLUMNS_KEY: written,
    }


def _categorical(names: NDArray[np.object_]) -> Categorical:
    import pandas as pd

    present = sorted(set(names) - {UNKNOWN}) + ([UNKNOWN] if UNKNOWN in names else [])
    return pd.Categorical(names, categories=present)
