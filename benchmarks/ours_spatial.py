"""ScRCL on tissue sections: the spatial preset and the paper's spatial preset on the graph of the spots."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.code import hash_code
from benchmarks.datasets import Cells
from benchmarks.methods import Column, Method, Outcome
from benchmarks.ours import CODE, PACKAGES, PAPER_STARTS, SELECT_EVERY, train_paper
from benchmarks.peers_spatial import N_VOTERS, two_columns, vote, with_vote
from scrcl_train.presets import get_preset

if TYPE_CHECKING:
    from scrcl_train.config import TrainConfig
    from scrcl_train.features import Features


def spatial_paper(n_types: int, epochs: int | None) -> TrainConfig:
    """Return the paper's spatial fallback row with its published output width, the number of types."""
    config = get_preset("paper:spatial", epochs=epochs)
    return dataclasses.replace(config, teacher=dataclasses.replace(config.teacher, dim=n_types))


def _prepare(cells: Cells, config: TrainConfig) -> Features:
    from scrcl_train.features import prepare_features

    return prepare_features(cells.counts, config, spatial=cells.spatial)


def run_default(features: Features, cells: Cells, seed: int) -> Outcome:
    """Find domains with K given and with K estimated; the teacher has no part in them."""
    from scrcl_infer.spatial import Spots
    from scrcl_train.domains import find_domains

    counts, library_size = (
        cells.counts[:, features.hvgs],
        np.asarray(cells.counts.sum(axis=1), dtype=np.float64).ravel(),
    )
    spots = Spots(np.asarray(cells.spatial, dtype=np.float64), np.zeros(len(library_size), dtype=np.int64))
    n_neighbors = get_preset("spatial").graph.n_neighbors
    given, estimated = (
        find_domains(counts, library_size, spots, n_neighbors=n_neighbors, n_domains=k, seed=seed).populations.labels
        for k in (cells.n_types, None)
    )
    return with_vote({"ours-k": given, "ours": estimated}, cells)


def make_paper(epochs: int | None = None) -> Method:
    """Return the paper's spatial preset as a method; `epochs` other than the published 500 get a name that says so."""
    name = "paper" if epochs is None else f"paper@{epochs}"
    words = "" if epochs is None else f" ({epochs} epochs)"

    def run(features: Features, cells: Cells, seed: int) -> Outcome:
        found = train_paper(features, spatial_paper(cells.n_types, epochs), cells.n_types, seed)
        last = with_vote({name: found[max(found)]}, cells).clusters
        # The authors choose the epoch by the scores after the vote.
        places = cells.spatial
        voted = found if places is None else {epoch: vote(labels, places) for epoch, labels in found.items()}
        return Outcome(last, {f"{name}-selected": voted})

    note = f"of every {SELECT_EVERY}th epoch the one with the best NMI against the labels is kept: not a fair method"
    width = "told the number of domains twice: for k-means and, as published, as the width of Z"
    plain, after = two_columns(name, f"paper preset, last epoch{words}", is_ours=True)
    selected = Column(
        f"{name}-selected",
        f"paper preset, LABEL-SELECTED epoch{words}, voted",
        "given",
        note=note,
        is_ours=True,
        uses_labels=True,
    )
    return Method(
        name,
        (dataclasses.replace(plain, note=width), dataclasses.replace(after, note=width), selected),
        lambda cells: _prepare(cells, get_preset("paper:spatial")),
        run,
        version=hash_code(CODE),
        settings={
            "config": get_preset("paper:spatial", epochs=epochs).to_dict(),
            "starts": PAPER_STARTS,
            "every": SELECT_EVERY,
            "voters": N_VOTERS,
        },
        packages=PACKAGES,
        needs=("torch", "skmisc"),
    )


OURS: tuple[Method, ...] = (
    Method(
        "ours",
        (
            *two_columns("ours-k", "scRCL", is_ours=True),
            *two_columns("ours", "scRCL", k="estimated", is_ours=True),
        ),
        lambda cells: _prepare(cells, get_preset("spatial")),
        run_default,
        version=hash_code((*CODE, "autocorrelation", "domains")),
        settings={"config": get_preset("spatial").to_dict(), "voters": N_VOTERS},
        packages=PACKAGES,
        needs=("torch",),
    ),
    make_paper(),
)


def find_method(name: str, methods: tuple[Method, ...]) -> Method | None:
    """Return a method by name; 'paper@N' is the paper preset with N epochs, for machines without a GPU."""
    head, _, epochs = name.partition("@")
    if head == "paper" and epochs.isdigit() and int(epochs) > 0:
        return make_paper(int(epochs))
    return next((method for method in methods if method.name == name), None)
