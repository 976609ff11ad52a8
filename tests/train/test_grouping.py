"""Tissue sections from file to bundle to another section; layers are known. Other cells: `test_pipeline.py`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

import scrcl_infer
from scrcl_infer.contract import SpatialSpec
from scrcl_infer.errors import InputError
from scrcl_infer.result import AssignOptions
from scrcl_infer.spatial import Spots, smooth_counts, vote
from scrcl_infer.verify import verify_bundle
from scrcl_train.config import GraphConfig, TeacherConfig, TrainConfig
from scrcl_train.data import read_training_data
from scrcl_train.features import prepare_features
from scrcl_train.grouping import clustered_embedding, group_by_teacher, group_cells, student_input
from scrcl_train.options import TrainOptions
from scrcl_train.pipeline import TrainResult, train
from scrcl_train.presets import get_preset
from scrcl_train.trainer import fit
from tests.make_section import layered_section

OPTIONS = TrainOptions(config=get_preset("spatial", epochs=3), n_populations=4, seed=0)
EMPTY = 17
"""A spot without counts."""


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sections that lie at the same coordinates."""
    both = ad.concat([layered_section(seed=1), layered_section(seed=2, name="B")])
    counts = both.X.tolil()
    counts[EMPTY] = 0
    both.X = counts.tocsr()
    path = tmp_path_factory.mktemp("tissue") / "slices.h5ad"
    both.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def result(slices: Path) -> TrainResult:
    options = replace(OPTIONS, section_key="slice", write_h5ad=slices.with_name("found.h5ad"))
    return train(slices, slices.with_name("model"), options)


def test_layers_are_found_in_both_sections(result: TrainResult, slices: Path) -> None:
    found = ad.read_h5ad(slices.with_name("found.h5ad"))
    for name in ("A", "B"):
        own = found[(found.obs["slice"] == name) & (found.obs["scrcl_population"] != "unknown")]
        assert adjusted_rand_score(own.obs["layer"], own.obs["scrcl_population"]) > 0.8
    assert found.obs["scrcl_population"].iloc[EMPTY] == "unknown"
    assert result.bundle.manifest.spatial == SpatialSpec(n_neighbors=6, n_steps=5)
    assert verify_bundle(result.folder).passed


def test_a_new_section_is_assigned_by_its_own_coordinates(result: TrainResult, slices: Path) -> None:
    model = scrcl_infer.load(result.folder, threads=1)
    new = layered_section(seed=5, name="C")
    answers = model.assign(new, options=AssignOptions(reject=False))
    found = ad.read_h5ad(slices.with_name("found.h5ad"))
    named = found.obs.groupby("scrcl_population", observed=True)["layer"].agg(lambda layers: layers.mode()[0])
    layers = named.loc[answers.population].to_numpy()
    assert (layers == new.obs["layer"]).mean() > 0.85
    shuffled = new.copy()
    shuffled.obsm["spatial"] = np.random.default_rng(0).permutation(new.obsm["spatial"])
    lost = model.assign(shuffled, options=AssignOptions(reject=False))
    assert (named.loc[lost.population].to_numpy() == new.obs["layer"]).mean() < 0.6, "places must matter"


def test_training_spots_get_their_domain_back(result: TrainResult, slices: Path) -> None:
    answers = scrcl_infer.load(result.folder).assign(slices, options=AssignOptions(section="slice", reject=False))
    names = np.array([p.name for p in result.bundle.manifest.populations], dtype=object)
    used = np.arange(800) != EMPTY
    assert (answers.population[used] == names[result.found.populations.labels]).mean() > 0.95
    assert answers.population[EMPTY] == "unknown"


def test_the_student_sees_what_assigning_shows_the_encoder(slices: Path) -> None:
    config = OPTIONS.config
    data = read_training_data(slices, spatial=True, section_key="slice")
    assert data.spots is not None
    assert (data.n_cells, len(data.spots.places), len(set(data.spots.section))) == (799, 799, 2)
    spots = (data.spots.places, data.spots.section)
    features = prepare_features(data.counts, config, spatial=spots[0], section=spots[1])
    counts, library, spec = student_input(data, features, config)
    expected, totals = smooth_counts(
        data.counts[:, features.hvgs], data.library_size, data.spots, SpatialSpec(n_neighbors=6, n_steps=5)
    )
    np.testing.assert_array_equal(counts.toarray(), expected)
    np.testing.assert_array_equal(library, totals.ravel())
    assert spec == SpatialSpec(n_neighbors=6, n_steps=5)
    plain, sums, nothing = student_input(replace(data, spots=None), features, config)
    assert nothing is None
    np.testing.assert_array_equal(plain.toarray(), data.counts[:, features.hvgs].toarray())
    np.testing.assert_array_equal(sums, data.library_size)


def test_the_papers_domains_are_voted_on(slices: Path) -> None:
    """Its own embedding, its own clustering, then the majority of the nearest spots."""
    base = TeacherConfig(refinement="paper", hidden=16, dim=4, epochs=2, smoothing=(2, 1))
    paper = get_preset("paper:spatial")
    features_of = replace(paper.features, hvg_flavor="seurat", n_hvgs=60)
    config = TrainConfig(
        features=features_of, graph=GraphConfig(space="spots", n_neighbors=6), teacher=base, n_voters=12
    )
    data = read_training_data(slices, spatial=True, section_key="slice")
    assert data.spots is not None
    spots = data.spots
    features = prepare_features(data.counts, config, spatial=spots.places, section=spots.section)
    teacher = fit(features, config, seed=0, device="cpu")
    voted, embedding = group_cells(data, features, teacher, config, n_populations=3)
    np.testing.assert_array_equal(embedding, np.concatenate([teacher.z_1, teacher.z_2], axis=1))
    np.testing.assert_array_equal(embedding, clustered_embedding(teacher, config))
    plain, _ = group_cells(data, features, teacher, replace(config, n_voters=0), n_populations=3)
    alone = group_by_teacher(features, teacher, n_populations=3)
    np.testing.assert_array_equal(plain.labels, alone.labels)
    expected = vote(plain.labels, Spots(spots.places, spots.section), n_voters=12)
    assert adjusted_rand_score(expected, voted.labels) == 1
    assert get_preset("paper:DLPFC_151673").n_voters == 50


def test_places_and_sections_are_asked_for(slices: Path, tmp_path: Path) -> None:
    bare = ad.read_h5ad(slices)
    del bare.obsm["spatial"]
    bare.write_h5ad(tmp_path / "bare.h5ad")
    with pytest.raises(InputError, match=r"coordinates of the spots are needed in obsm\['spatial'\]"):
        train(tmp_path / "bare.h5ad", tmp_path / "model", OPTIONS)
    with pytest.raises(InputError, match="slide"):
        train(slices, tmp_path / "model", replace(OPTIONS, section_key="slide"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(("--section", "slice"), "needs --spatial"), (("--spatial", "--preset", "paper:Zeisel"), "not for tissue")],
)
def test_options_that_do_not_go_together(tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    code = "from scrcl_train.cli import main; main()"
    command = [sys.executable, "-c", code, "missing.h5ad", "-o", str(tmp_path / "out"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert text in done.stderr


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("first", "second", "least"),
    [("DLPFC_151673", "DLPFC_151674", (0.5, 0.4)), ("STARmap_mPFC_BZ5", "STARmap_mPFC_BZ9", (0.75, 0.4))],
)
def test_domains_of_one_real_section_carry_over_to_the_next(
    first: str, second: str, least: tuple[float, float], real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """Domains found without labels in one section; the next section assigned by its own coordinates."""
    source = real_data(first)
    truth = ad.read_h5ad(source, backed="r").obs["ground_truth"]
    options = TrainOptions(config=get_preset("spatial", epochs=20), n_populations=truth.nunique())
    result = train(source, tmp_path / "model", options)
    known = truth.notna().to_numpy()
    assert adjusted_rand_score(truth[known], result.found.populations.labels[known]) > least[0]
    query = ad.read_h5ad(real_data(second))
    answers = scrcl_infer.load(result.folder).assign(query, options=AssignOptions(reject=False))
    known = query.obs["ground_truth"].notna().to_numpy()
    assert adjusted_rand_score(query.obs["ground_truth"][known], answers.population[known]) > least[1]
