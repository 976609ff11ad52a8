"""Ablation benchmark: the default preset with one part taken out at a time, K given, on the labelled scRNA-seq sets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.clustering import METRICS as CLUSTERING_METRICS
from benchmarks.clustering import score
from benchmarks.code import hash_code
from benchmarks.datasets import DEVELOPMENT, NINE, Cells
from benchmarks.methods import Column, Method, Outcome
from benchmarks.ours import CODE, DEVICE, PACKAGES, cluster_cosine
from benchmarks.runner import Plan, Results
from benchmarks.table import Table
from scrcl_train.presets import get_preset

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scrcl_train.config import TrainConfig
    from scrcl_train.consensus import ConsensusTree, Views
    from scrcl_train.features import Features
    from scrcl_train.trainer import Teacher

__all__ = ["METHODS", "SETS", "find_method", "make_table", "score"]

SETS = DEVELOPMENT
METRICS = tuple(metric for metric in CLUSTERING_METRICS if metric != "n_clusters")

PROTOCOL = """\
The default preset with one part taken out, K given; everything else, the seed included, stays the same. Scores as in
the clustering benchmark.

- *without the first alignment*, *without the second alignment*: no L_EDA; λ₁ = 0.
- *without the learned refinement*: λ₂ = 0 and no gene programs; borders are drawn on [E₁, E₂] in place of [Z₁, Z₂].
- *without the linear refinement*: principal components as they are, not shrunk to what gene-gene correlations support.
- *without any refinement*: both of these.
- *without the teacher*: nothing learned by gradient; no borders are redrawn.
- *without smoothing*: both views of the teacher see cells as they are, and so do all views of the consensus.
- *without the consensus*: k-means by cosine, best of ten starts, on [Z₁, Z₂], as published.
- *published graph*: 15 nearest by cosine on log1p variable genes, in place of refined components, everywhere."""


@dataclass(frozen=True)
class Prepared:
    """What no seed changes: the features as the preset makes them, and as two parts taken out leave them."""

    full: Features
    plain: Features
    """No component is shrunk."""
    published_graph: Features


def prepare(cells: Cells) -> Prepared:
    """Return the features of the default preset and of the two variants that change them."""
    from scrcl_train.components import Components, Neighbors
    from scrcl_train.features import _neighbors, _refine, normalise, prepare_features
    from scrcl_train.graphs import join_neighbors, nearest_neighbors

    config = get_preset("default")
    full = prepare_features(cells.counts, config)
    if full.components is None:
        msg = "the default preset makes components"
        raise AssertionError(msg)
    scores = full.components.scores
    everything = np.ones(scores.shape[1], dtype=np.float32)
    components = Components(scores, full.components.loadings, everything, full.components.noise)
    inputs, genes = _refine(components, config.graph)
    neighbors = _neighbors(components, config.graph, seed=0)
    plain = dataclasses.replace(
        full,
        inputs=inputs,
        gene_graph=genes,
        components=components,
        neighbors=neighbors,
        cell_graph=join_neighbors(neighbors.refined),
    )
    log = normalise(cells.counts, np.asarray(cells.counts.sum(axis=1), dtype=np.float64).ravel())[:, full.hvgs]
    nearest = nearest_neighbors(log.toarray(), n_neighbors=config.graph.n_neighbors, cosine=True)
    published = dataclasses.replace(full, neighbors=Neighbors(nearest, nearest), cell_graph=join_neighbors(nearest))
    return Prepared(full, plain, published)


def run(prepared: Prepared, cells: Cells, seed: int) -> Outcome:
    """Run the preset and each variant once; trees are shared by the variants that do not change them."""
    from scrcl_train.consensus import build_tree

    config, k = get_preset("default"), cells.n_types
    full = _views(prepared.full)
    flat = dataclasses.replace(full, clustered=full.clustered[:2], alike=_components(prepared.full).scores)
    plain, published = _views(prepared.plain), _views(prepared.published_graph)
    trees = {
        name: build_tree(views, min_leaves=k, seed=seed)
        for name, views in (("full", full), ("flat", flat), ("plain", plain), ("published", published))
    }

    def fit(features: Features, *, without_eda: bool = False, **teacher: Any) -> Teacher:  # noqa: ANN401 - settings
        return _fit(features, _changed(config, **teacher), seed, without_eda=without_eda)

    whole, alone = fit(prepared.full), fit(prepared.full, lambda_cvc=0.0)
    plain_whole, plain_alone = fit(prepared.plain), fit(prepared.plain, lambda_cvc=0.0)
    found = {
        "full": _group(full, trees["full"], k, _z(whole)),
        "no-eda": _group(full, trees["full"], k, _z(fit(prepared.full, without_eda=True))),
        "no-nca": _group(full, trees["full"], k, _z(fit(prepared.full, lambda_nca=0.0))),
        "no-learned": _group(full, trees["full"], k, _e(alone)),
        "no-linear": _group(plain, trees["plain"], k, _z(plain_whole)),
        "no-refinement": _group(plain, trees["plain"], k, _e(plain_alone)),
        "no-teacher": _group(full, trees["full"], k, None),
        "no-smoothing": _group(flat, trees["flat"], k, _z(fit(prepared.full, smoothing=(0, 0)))),
        "no-consensus": cluster_cosine(_z(whole), k, seed),
        "published-graph": _group(published, trees["published"], k, _z(fit(prepared.published_graph))),
    }
    return Outcome(found)


def _changed(config: TrainConfig, **teacher: Any) -> TrainConfig:  # noqa: ANN401 - settings of several types
    return dataclasses.replace(config, teacher=dataclasses.replace(config.teacher, **teacher))


def _fit(features: Features, config: TrainConfig, seed: int, *, without_eda: bool) -> Teacher:
    from scrcl_train import trainer

    if not without_eda:
        return trainer.fit(features, config, seed=seed, device=DEVICE)
    # No setting switches L_EDA off, and none is wanted: here the trainer's sum is made without it.
    whole = trainer.compute_losses

    def without(*args: Any) -> dict[str, Any]:  # noqa: ANN401 - as `compute_losses`
        losses = whole(*args)
        return losses | {"loss": losses["loss"] - losses["eda"]}

    trainer.compute_losses = without  # type: ignore[assignment]
    try:
        return trainer.fit(features, config, seed=seed, device=DEVICE)
    finally:
        trainer.compute_losses = whole


def _components(features: Features) -> Any:  # noqa: ANN401 - Components, known to be there
    return features.components


def _views(features: Features) -> Views:
    from scrcl_train.consensus import make_views

    neighbors: Any = features.neighbors
    return make_views(_components(features), neighbors, np.zeros((len(_components(features).scores), 1)))


def _group(views: Views, tree: ConsensusTree, k: int, learned: NDArray[np.floating] | None) -> NDArray[np.int64]:
    """Cut a tree and settle the cells as `scrcl_train.populations.find_populations` does."""
    from scrcl_train.populations import cut_with_guard, follow_neighbors, settle

    seen = dataclasses.replace(views, learned=learned)
    return settle(follow_neighbors(cut_with_guard(tree, k), k, seen), seen)


def _z(teacher: Teacher) -> NDArray[np.float32]:
    return np.concatenate([teacher.z_1, teacher.z_2], axis=1)


def _e(teacher: Teacher) -> NDArray[np.float32]:
    return np.concatenate([teacher.emb_1, teacher.emb_2], axis=1)


METHODS: tuple[Method, ...] = (
    Method(
        "ablation",
        tuple(
            Column(key, title, "given", is_ours=True)
            for key, title in (
                ("full", "scRCL"),
                ("no-eda", "without the first alignment"),
                ("no-nca", "without the second alignment"),
                ("no-learned", "without the learned refinement"),
                ("no-linear", "without the linear refinement"),
                ("no-refinement", "without any refinement"),
                ("no-teacher", "without the teacher"),
                ("no-smoothing", "without smoothing"),
                ("no-consensus", "without the consensus"),
                ("published-graph", "published graph"),
            )
        ),
        prepare,
        run,
        version=hash_code((*CODE, "alignment", "components", "consensus", "populations")),
        settings={"config": get_preset("default").to_dict()},
        packages=PACKAGES,
        needs=("torch",),
    ),
)


def find_method(name: str, methods: tuple[Method, ...]) -> Method | None:
    """Return a method by name."""
    return next((method for method in methods if method.name == name), None)


def make_table(plan: Plan, results: Results, n_types: dict[str, int]) -> Table:
    """Return the table of finished calls."""
    groups = (("mean of the nine", NINE), ("mean of all", tuple(item.name for item in plan.sets)))
    notes = {name: f" (K = {k})" for name, k in n_types.items()}
    return Table("ablation", PROTOCOL, METRICS, groups, plan, results, PACKAGES, row_notes=notes)
