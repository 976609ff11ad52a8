"""Make a tiny, valid bundle from a seed. `python -m tests.make_bundle FOLDER` writes one without a type head.

The encoder is a random network of the exported shape: the normalisation of raw counts, one hidden layer, the heads. The
golden answers come from numpy, not from onnxruntime, so that a replay compares two implementations.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.bundle import write_bundle
from scrcl_infer.contract import (
    SCHEMA_VERSION,
    TENSORS,
    Bundle,
    Calibration,
    CellType,
    EncoderSpec,
    GeneTable,
    Manifest,
    Parity,
    Population,
    Provenance,
    SpatialSpec,
)
from scrcl_infer.encoder import CONTRACT_ID_KEY
from scrcl_infer.parts import Centroids, GeneGraph, Golden, HeldOutAnswers, Rejection
from scrcl_infer.rarity import expect_rarity
from scrcl_infer.strangeness import Spaces, Usual, add_signs, compute_signs

OPSET = 18
TARGET_SUM = 10_000.0
N_COMPONENTS = 6
Weights = dict[str, NDArray[np.float32]]


def random_weights(
    *, n_genes: int = 40, hidden: int = 16, dim: int = 8, n_populations: int = 5, n_types: int = 4, seed: int = 0
) -> Weights:
    rng = np.random.default_rng(seed)
    heads = {
        "embedding": dim,
        "log_posterior": n_populations,
        "map": 2,
        "log_type_posterior": n_types,
        "components": N_COMPONENTS,
    }
    weights = {
        "mean": rng.uniform(0.5, 4.0, n_genes),
        "inverse_sd": rng.uniform(0.3, 1.5, n_genes),
        "w": rng.normal(size=(n_genes, hidden)) / np.sqrt(n_genes),
        "b": rng.normal(size=hidden) / 2,
    }
    for name, width in heads.items():
        if width:
            weights[f"w_{name}"] = rng.normal(size=(hidden, width))
            weights[f"b_{name}"] = rng.normal(size=width)
    weights["w_rarity"] = rng.integers(0, 128, (n_genes, n_types or n_populations))
    weights["b_rarity"] = np.zeros(n_types or n_populations)
    return {name: value.astype(np.float32) for name, value in weights.items()}


def numpy_forward(
    weights: Weights, counts: NDArray[np.float32], library_size: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """The encoder in float64 numpy: the outside truth for onnxruntime."""
    expr = np.log1p(counts.astype(np.float64) * (TARGET_SUM / np.maximum(library_size.astype(np.float64), 1.0)))
    scaled = np.clip((expr - weights["mean"]) * weights["inverse_sd"], -10.0, 10.0)
    hidden = np.maximum(scaled @ weights["w"] + weights["b"], 0.0)
    out = {}
    for name in TENSORS[2:]:
        if f"w_{name}" not in weights:
            continue
        before = counts > 0 if name == TENSORS.rarity else hidden
        value = before @ weights[f"w_{name}"].astype(np.float64) + weights[f"b_{name}"]
        if name == TENSORS.embedding:
            value /= np.maximum(np.linalg.norm(value, axis=1, keepdims=True), 1e-12)
        elif name not in (TENSORS.map, TENSORS.components, TENSORS.rarity):
            top = value.max(axis=1, keepdims=True)
            value -= top + np.log(np.exp(value - top).sum(axis=1, keepdims=True))
        out[name] = value
    return out


def onnx_model(weights: Weights, contract_id: str | None) -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node
    constants = {"target": TARGET_SUM, "one": 1.0, "low": -10.0, "high": 10.0, "tiny": 1e-12}
    tensors = weights | {name: np.array(value, np.float32) for name, value in constants.items()}
    nodes = [
        node("Max", ["library_size", "one"], ["total"]),
        node("Div", ["target", "total"], ["factor"]),
        node("Mul", ["counts", "factor"], ["cp10k"]),
        node("Add", ["cp10k", "one"], ["cp10k_1"]),
        node("Log", ["cp10k_1"], ["expr"]),
        node("Sub", ["expr", "mean"], ["centred"]),
        node("Mul", ["centred", "inverse_sd"], ["scaled"]),
        node("Clip", ["scaled", "low", "high"], ["clipped"]),
        node("Gemm", ["clipped", "w", "b"], ["linear"]),
        node("Relu", ["linear"], ["hidden"]),
        node("Gemm", ["hidden", "w_embedding", "b_embedding"], ["free"]),
        node("LpNormalization", ["free"], ["embedding"], axis=1, p=2),
        node("Gemm", ["hidden", "w_log_posterior", "b_log_posterior"], ["logits"]),
        node("LogSoftmax", ["logits"], ["log_posterior"], axis=1),
        node("Gemm", ["hidden", "w_map", "b_map"], ["map"]),
        node("Gemm", ["hidden", "w_components", "b_components"], ["components"]),
        node("Sign", ["counts"], ["shown"]),
        node("Gemm", ["shown", "w_rarity", "b_rarity"], ["rarity"]),
    ]
    if "w_log_type_posterior" in weights:
        nodes += [
            node("Gemm", ["hidden", "w_log_type_posterior", "b_log_type_posterior"], ["type_logits"]),
            node("LogSoftmax", ["type_logits"], ["log_type_posterior"], axis=1),
        ]

    def value(name: str, width: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])

    outputs = [value(n, len(weights[f"b_{n}"])) for n in TENSORS[2:] if f"b_{n}" in weights]
    inputs = [value("counts", len(weights["mean"])), value("library_size", 1)]
    used = {name for item in nodes for name in item.input}
    initializers = [numpy_helper.from_array(array, name) for name, array in tensors.items() if name in used]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    if contract_id is not None:
        helper.set_model_props(model, {CONTRACT_ID_KEY: contract_id})
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def random_counts(n_cells: int, n_genes: int, *, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, G) Poisson counts and (N, 1) library sizes with some counts in other genes."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.5, 2.0, n_genes), size=(n_cells, n_genes)).astype(np.float32)
    others = rng.poisson(200, size=(n_cells, 1)).astype(np.float32)
    return counts, counts.sum(axis=1, keepdims=True) + others


def tiny_bundle(
    *,
    seed: int = 0,
    n_genes: int = 40,
    dim: int = 8,
    n_populations: int = 5,
    n_types: int = 4,
    spatial: SpatialSpec | None = None,
) -> Bundle:
    """A valid bundle; `n_types=0` leaves out the type head (the populations' types stay, four of them)."""
    rng = np.random.default_rng(seed)
    weights = random_weights(n_genes=n_genes, dim=dim, n_populations=n_populations, n_types=n_types, seed=seed)
    manifest = _manifest(n_genes, dim, n_populations, n_types, spatial)
    counts, library_size = random_counts(32, n_genes, seed=seed + 1)
    expected = {n: v.astype(np.float32) for n, v in numpy_forward(weights, counts, library_size).items()}
    rejection = random_rejection(dim, n_types or n_populations, n_genes=n_genes, seed=seed)
    rejection = replace(rejection, rarity=weights["w_rarity"].astype(np.uint8))
    rejection = usual_of(rejection, expected, counts)
    del expected["components"], expected["rarity"]
    no_types = np.empty((32, 0), np.float32)
    centroids = rng.normal(size=(n_populations, dim))
    neighbors = np.argsort(rng.random((n_genes, n_genes)), axis=1)[:, :3]
    return Bundle(
        manifest=manifest,
        encoder=onnx_model(weights, manifest.contract_id),
        centroids=Centroids(
            centroids=(centroids / np.linalg.norm(centroids, axis=1, keepdims=True)).astype(np.float32),
            radii=rng.uniform(0.2, 0.8, n_populations).astype(np.float32),
        ),
        gene_graph=GeneGraph(
            indptr=np.arange(0, 3 * n_genes + 1, 3, dtype=np.int64),
            indices=np.sort(neighbors, axis=1).ravel().astype(np.int64),
            correlations=rng.uniform(-1, 1, 3 * n_genes).astype(np.float32),
            embedding=rng.random((n_genes, 4)).astype(np.float32),
            association=rng.normal(size=(n_populations, n_genes)).astype(np.float32),
        ),
        golden=Golden(counts=counts, library_size=library_size, **{"log_type_posterior": no_types} | expected),
        card="# tiny\n\nA random network for tests. It knows nothing about cells.\n",
        rejection=rejection,
        held_out=None if n_types else random_answers(n_populations, seed=seed),
    )


def random_answers(n_populations: int, *, seed: int = 0) -> HeldOutAnswers:
    """Answers for 40 held-out cells, right for most."""
    rng = np.random.default_rng(seed)
    population = rng.integers(0, n_populations, 40)
    logits = 3 * np.eye(n_populations)[population] + rng.normal(0, 2, (40, n_populations))
    log_posterior = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return HeldOutAnswers(log_posterior.astype(np.float32), population, rng.random(40) < 0.95)


def usual_of(rejection: Rejection, expected: Weights, counts: NDArray[np.float32]) -> Rejection:
    """The reference with medians and spreads at which most such cells are usual."""
    n_detected = np.count_nonzero(counts, axis=1)
    signs = compute_signs(spaces_of(expected), n_detected, rejection, expect_rarity(rejection.rarity))
    median = np.median(signs, axis=0)
    spread = np.median(np.abs(signs - median), axis=0) + 0.01
    flat = replace(
        rejection,
        log_detected=np.array([1.0, 1.5], np.float32),
        median=np.broadcast_to(median, (2, 2, 5)).astype(np.float32),
        spread=np.broadcast_to(spread, (2, 2, 5)).astype(np.float32),
        weights=rejection.weights[:2],
    )
    usual = Usual(flat.log_detected, flat.median[-1], flat.spread[-1], flat.weights)
    score = add_signs(signs, n_detected, usual)
    return replace(flat, limit=np.full((2, 2), np.quantile(score, 0.9) + 6, np.float32))


def spaces_of(expected: Mapping[str, NDArray[np.floating]]) -> Spaces:
    """Where the encoder puts cells; the classes are the types, where it has a type head."""
    classes = expected.get("log_type_posterior", expected["log_posterior"])
    spaces = expected["embedding"], expected["components"], expected["rarity"], classes
    return Spaces(*(values.astype(np.float32) for values in spaces))


def random_rejection(dim: int, n_classes: int, *, n_genes: int = 40, seed: int = 0) -> Rejection:
    """A reference that finds some of the tiny bundle's cells strange and some not."""
    rng = np.random.default_rng(seed)
    profiles = rng.normal(size=(n_classes, N_COMPONENTS - 1))
    arrays = {
        "embedding_whitening": np.eye(dim) * 4,
        "embedding_means": rng.normal(size=(n_classes, dim)),
        "components_whitening": np.eye(N_COMPONENTS - 2),
        "components_means": rng.normal(size=(n_classes, N_COMPONENTS - 2)),
        "profile_means": profiles / np.linalg.norm(profiles, axis=1, keepdims=True),
    }
    arrays |= {f"{space}_radii": rng.uniform(0.5, 2, n_classes) for space in ("embedding", "components", "profile")}
    return Rejection(
        **{name: values.astype(np.float32) for name, values in arrays.items()},
        rarity=rng.integers(0, 128, (n_genes, n_classes)).astype(np.uint8),
        log_detected=np.array([0.5, 1.0, 1.5], np.float32),
        overlap=np.array([0.5, 1], np.float32),
        median=np.array([[[4, 2, 0.5, 1, -2], *[[3, 1.5, 0.3, 1, -2]] * 2]] * 2, np.float32),
        spread=np.stack([np.full((3, 5), 2), np.ones((3, 5))]).astype(np.float32),
        weights=np.array([[1, 1, 1, 1, 0.2], [1, 1, 1, 1, 0.5], [1, 1, 1, 1, 0]], np.float32),
        limit=np.array([[2, 1, 2], [1, 0, 1]], np.float32),
    )


def _manifest(n_genes: int, dim: int, n_populations: int, n_types: int, spatial: SpatialSpec | None) -> Manifest:
    types = [f"type {chr(ord('A') + i)}" for i in range(n_types or 4)]
    evidence = np.linspace(2.0, 1.0, n_genes)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name="tiny",
        created_by="scrcl 0.1.0",
        genes=GeneTable(
            names=tuple(f"GENE{i}" for i in range(n_genes)),
            symbols=tuple(f"GENE{i}" for i in range(n_genes)),
            ensembl_ids=tuple(f"ENSG{i:011d}" for i in range(n_genes)),
            evidence=tuple((evidence / evidence.sum()).tolist()),
            species="Homo sapiens",
            count_shares=tuple((evidence / evidence.sum() * 0.6).tolist()),
        ),
        encoder=EncoderSpec(
            opset=OPSET, dim=dim, n_populations=n_populations, n_types=n_types, target_sum=TARGET_SUM
        ),
        populations=tuple(
            Population(name=f"P{i + 1}", cell_type=types[i % len(types)], n_cells=100 - i, purity=0.9)
            for i in range(n_populations)
        ),
        cell_types=tuple(CellType(name=name, n_cells=100, ontology_id=None) for name in types),
        calibration=Calibration(temperature=1.5, threshold=0.3, kept_fraction=0.95, n_held_out=50),
        parity=Parity(max_abs_diff=1e-7, label_agreement=1.0, n_cells=32),
        provenance=Provenance(
            data_name="random", data_sha256="0" * 64, n_cells=500, n_genes=n_genes, preset="default", seed=0,
            label_keys=("cell_type",), batch_key=None, versions={"numpy": "2"}, data_licence="none",
        ),
        spatial=spatial,
    )  # fmt: skip


if __name__ == "__main__":
    print(write_bundle(tiny_bundle(n_types=0), Path(sys.argv[1])))
