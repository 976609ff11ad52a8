"""ScRCL itself: the default preset, and the paper's with its last epoch and with the one that labels would choose."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.code import hash_code
from benchmarks.datasets import Cells
from benchmarks.methods import Column, Method, Outcome
from scrcl_infer.errors import TrainingError
from scrcl_train.presets import get_preset

if TYPE_CHECKING:
    from scrcl_train.config import TrainConfig
    from scrcl_train.features import Features

CODE = ("config", "device", "features", "graphs", "layers", "model", "objective", "trainer")
"""Modules of scrcl_train whose code decides the clusters."""
PACKAGES = ("numpy", "scanpy", "scikit-learn", "scipy", "torch")
DEVICE = "auto"
PAPER_STARTS = 10
SELECT_EVERY = 5
"""Epochs between two that the labels may choose from."""


def prepare_default(cells: Cells) -> Features:
    """Return what the default preset's teacher sees of the cells."""
    from scrcl_train.features import prepare_features

    return prepare_features(cells.counts, get_preset("default"))


def run_default(features: Features, cells: Cells, seed: int) -> Outcome:
    """Train the default preset once; find populations with K given and with K estimated."""
    from scrcl_train.grouping import group_by_teacher
    from scrcl_train.trainer import fit

    teacher = fit(features, get_preset("default"), seed=seed, device=DEVICE)
    given = group_by_teacher(features, teacher, n_populations=cells.n_types, seed=seed)
    estimated = group_by_teacher(features, teacher, seed=seed)
    return Outcome({"ours-k": given.labels, "ours": estimated.labels})


def paper_config(n_types: int, epochs: int | None) -> TrainConfig:
    """Return the paper preset with its published output width, the number of types."""
    config = get_preset("paper", epochs=epochs)
    return dataclasses.replace(config, teacher=dataclasses.replace(config.teacher, dim=n_types))


def prepare_paper(cells: Cells) -> Features:
    """Return what the paper preset's teacher sees of the cells."""
    from scrcl_train.features import prepare_features

    return prepare_features(cells.counts, get_preset("paper"))


def train_paper(
    features: Features, config: TrainConfig, n_types: int, seed: int, *, every: int = SELECT_EVERY
) -> dict[int, NDArray[np.int64]]:
    """Train as `scrcl_train.trainer.fit` does and cluster [Z₁, Z₂] by cosine k-means on the way.

    Returns
    -------
    Epoch -> (n,) clusters, for every fifth epoch and the last.

    Raises
    ------
    TrainingError
        The loss is no longer finite.
    """
    import torch

    from scrcl_train.device import choose_device, reproducible
    from scrcl_train.trainer import build_model, compute_losses, embed, place_inputs

    place, teacher = choose_device(DEVICE), config.teacher
    found = {}
    with reproducible(seed, place):
        inputs = place_inputs(features, teacher, device=place)
        model = build_model(features, teacher).to(place)
        optimiser = torch.optim.Adam(model.parameters(), lr=teacher.learning_rate, weight_decay=teacher.weight_decay)
        for epoch in range(1, teacher.epochs + 1):
            model.train()
            optimiser.zero_grad(set_to_none=True)
            loss = compute_losses(model(inputs), inputs.cells, teacher)["loss"]
            if not math.isfinite(float(loss.detach())):
                msg = f"the loss is no longer finite at epoch {epoch}"
                raise TrainingError(msg)
            torch.autograd.backward(loss)
            optimiser.step()
            if epoch % every == 0 or epoch == teacher.epochs:
                output = embed(model, inputs)
                z = torch.cat([output.z_1, output.z_2], dim=1).cpu().numpy()
                found[epoch] = cluster_cosine(z, n_types, seed)
    return found


def cluster_cosine(values: NDArray[Any], n_clusters: int, seed: int) -> NDArray[np.int64]:
    """Return (n,) clusters by k-means on unit rows, which orders distances as the cosine does; best of ten starts."""
    from sklearn.cluster import KMeans

    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return np.asarray(KMeans(n_clusters, n_init=PAPER_STARTS, random_state=seed).fit_predict(unit), dtype=np.int64)


def make_paper(epochs: int | None = None) -> Method:
    """Return the paper preset as a method; `epochs` other than the published 500 get a name that says so."""
    config = get_preset("paper", epochs=epochs)
    name = "paper" if epochs is None else f"paper@{epochs}"
    words = "" if epochs is None else f" ({epochs} epochs)"

    def run(features: Features, cells: Cells, seed: int) -> Outcome:
        found = train_paper(features, paper_config(cells.n_types, epochs), cells.n_types, seed)
        return Outcome({name: found[max(found)]}, {f"{name}-selected": found})

    note = f"of every {SELECT_EVERY}th epoch the one with the best NMI against the labels is kept: not a fair method"
    width = "told the number of types twice: for k-means and, as published, as the width of Z"
    return Method(
        name,
        (
            Column(name, f"paper preset, last epoch{words}", "given", note=width, is_ours=True),
            Column(
                f"{name}-selected",
                f"paper preset, LABEL-SELECTED epoch{words}",
                "given",
                note=note,
                is_ours=True,
                uses_labels=True,
            ),
        ),
        prepare_paper,
        run,
        version=hash_code(CODE),
        settings={"config": config.to_dict(), "starts": PAPER_STARTS, "every": SELECT_EVERY},
        packages=PACKAGES,
        needs=("torch",),
    )


OURS: tuple[Method, ...] = (
    Method(
        "ours",
        (
            Column("ours-k", "scRCL", "given", is_ours=True),
            Column("ours", "scRCL", "estimated", is_ours=True),
        ),
        prepare_default,
        run_default,
        version=hash_code((*CODE, "components", "consensus", "grouping", "populations")),
        settings={"config": get_preset("default").to_dict()},
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
