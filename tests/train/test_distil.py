"""What the student learns, and that the same seed teaches the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.decomposition import PCA

from scrcl_infer.errors import TrainingError
from scrcl_train.distil import DistilEpoch, Targets, distil, reduce_embedding
from scrcl_train.student import StudentConfig, predict
from tests.student_case import QUICK, make_targets, make_world, teach, without_augmentation

SHORT = replace(QUICK, min_steps=20)


def test_it_reproduces_the_embedding_up_to_rotation() -> None:
    world, student = teach(labelled=False)
    answer = predict(student, world.counts, world.library_size)
    target = reduce_embedding(make_targets(world, labelled=False).embedding, 6)
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    assert (answer.embedding * target).sum(axis=1).mean() > 0.9


def test_it_places_new_cells_on_the_map() -> None:
    _, student = teach(labelled=False)
    fresh = make_world(200, seed=5)
    expected = make_targets(fresh, labelled=False).map
    error = np.linalg.norm(predict(student, fresh.counts, fresh.library_size).map - expected, axis=1)
    assert np.median(error) < 2.5  # the three groups lie 16 to 17 apart


def test_it_knows_cells_at_a_fifth_of_the_depth_and_with_half_of_the_genes() -> None:
    _, student = teach(labelled=True)
    fresh = make_world(300, seed=6)
    rng = np.random.default_rng(0)
    thin = rng.binomial(fresh.counts.toarray().astype(int), 0.2).astype(np.float32)
    thin[:, rng.permutation(thin.shape[1])[::2]] = 0
    answer = predict(student, sp.csr_matrix(thin), fresh.library_size * np.float32(0.2))
    assert answer.log_type_posterior is not None
    assert (answer.log_type_posterior.argmax(axis=1) == fresh.truth).mean() > 0.8


def test_values_that_come_to_more_than_their_total_are_learned_with_the_total_they_will_come_with() -> None:
    """Logarithms of another base than they are taken for: 800 times what the cells are said to have been scaled to."""
    world = make_world()
    scaled, said = sp.csr_matrix(world.counts * 800), np.full_like(world.library_size, world.counts.sum(axis=1).mean())
    config = replace(QUICK, augment=replace(QUICK.augment, thin=False))
    student = distil(scaled, said, make_targets(world, labelled=False), config=config)
    agreement = predict(student, scaled, said).log_posterior.argmax(axis=1) == world.truth
    assert agreement.mean() > 0.95


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    world = make_world(80)
    targets = make_targets(world, labelled=True)
    weights = [
        distil(world.counts, world.library_size, targets, config=SHORT, seed=seed).state_dict() for seed in (1, 1, 2)
    ]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    assert not torch.equal(weights[0]["first.weight"], weights[2]["first.weight"])


def test_the_callers_random_state_is_left_alone() -> None:
    world = make_world(80)
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    distil(world.counts, world.library_size, make_targets(world, labelled=False), config=SHORT)
    assert torch.equal(torch.rand(3), expected)


def test_each_epoch_is_reported_and_the_loss_falls() -> None:
    world = make_world()
    seen: list[DistilEpoch] = []
    distil(
        world.counts,
        world.library_size,
        make_targets(world, labelled=True),
        config=replace(QUICK, min_steps=60),
        on_epoch=seen.append,
    )
    assert [log.epoch for log in seen] == list(range(1, seen[0].n_epochs + 1))
    assert set(seen[0].losses) == {"embedding", "population", "map", "type"}
    assert all(seen[-1].losses[name] < 0.8 * first for name, first in seen[0].losses.items())


def test_small_data_get_more_epochs() -> None:
    world = make_world(64)
    seen: list[DistilEpoch] = []
    config = replace(QUICK, epochs=2, min_steps=9, batch_size=32)
    distil(world.counts, world.library_size, make_targets(world, labelled=False), config=config, on_epoch=seen.append)
    assert len(seen) == 5  # 2 steps an epoch


def test_cells_without_label_do_not_teach_the_type_head() -> None:
    world = make_world(90)
    targets = make_targets(world, labelled=True)
    assert targets.types is not None
    config = without_augmentation(SHORT)
    none = replace(targets, types=np.full(90, -1))
    losses: list[DistilEpoch] = []
    distil(world.counts, world.library_size, none, config=config, on_epoch=losses.append)
    assert {log.losses["type"] for log in losses} == {0.0}


def test_one_label_in_the_batch_counts_as_one_cell_not_as_the_batch() -> None:
    world = make_world(90)
    targets = make_targets(world, labelled=True)
    lone = np.full(90, -1)
    lone[0] = 2
    losses: list[DistilEpoch] = []
    config = without_augmentation(replace(SHORT, batch_size=90, min_steps=1))
    distil(world.counts, world.library_size, replace(targets, types=lone), config=config, on_epoch=losses.append)
    # an untaught head of three types is wrong by some log 3; a ninetieth of that would be 0.01
    assert losses[0].losses["type"] > 0.1


def test_rare_types_weigh_more_but_not_in_full() -> None:
    rng = np.random.default_rng(0)
    n = 400
    types = (np.arange(n) < 20).astype(np.int64)
    # the same cells carry both labels: only the weights decide what the head answers
    counts = sp.csr_matrix(np.full((n, 5), 3.0, dtype=np.float32))
    targets = Targets(
        rng.normal(size=(n, 4)).astype(np.float32), np.zeros(n, np.int64), 1, np.zeros((n, 2), np.float32), types, 2
    )
    config = without_augmentation(replace(QUICK, min_steps=250, batch_size=n, learning_rate=1e-2))
    config = replace(config, student=StudentConfig(hidden=8, dim=4, dropout=0.0))
    student = distil(counts, np.full(n, 15.0, dtype=np.float32), targets, config=config)
    answer = predict(student, counts[:1], np.full(1, 15.0, dtype=np.float32)).log_type_posterior
    assert answer is not None
    # each type's cells times their weight, frequency to the power -1/4
    expected = 20**0.75 / (20**0.75 + 380**0.75)
    assert np.exp(answer[0, 1]) == pytest.approx(expected, abs=0.02)


def test_a_narrow_teacher_gives_a_narrow_student() -> None:
    world = make_world(80)
    targets = replace(make_targets(world, labelled=False), embedding=np.eye(3, dtype=np.float32)[world.truth])
    student = distil(world.counts, world.library_size, targets, config=SHORT)
    assert student.config.dim == 3
    assert predict(student, world.counts, world.library_size).embedding.shape == (80, 3)


def test_arrays_of_other_cells_are_refused() -> None:
    world = make_world(80)
    targets = make_targets(make_world(79), labelled=True)
    with pytest.raises(TrainingError, match=r"80 cells.*'embedding': 79"):
        distil(world.counts, world.library_size, targets, config=SHORT)


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    world = make_world(80)
    targets = make_targets(world, labelled=False)
    broken = replace(targets, map=np.where(np.arange(80)[:, None] == 3, np.inf, targets.map).astype(np.float32))
    with pytest.raises(TrainingError, match=r"map\) is not finite in epoch 1"), np.errstate(invalid="ignore"):
        distil(world.counts, world.library_size, broken, config=SHORT)


def test_reduced_embedding_is_a_pca_of_definite_sign() -> None:
    embedding = np.random.default_rng(0).normal(size=(50, 9)).astype(np.float32) @ np.diag(np.arange(9, 0, -1))
    reduced = reduce_embedding(embedding.astype(np.float32), 4)
    expected = PCA(4, svd_solver="full").fit_transform(embedding)
    np.testing.assert_allclose(np.abs(reduced), np.abs(expected), atol=1e-3)
    np.testing.assert_array_equal(reduced, reduce_embedding(embedding.astype(np.float32), 4))
    assert reduce_embedding(embedding.astype(np.float32), 100).shape == (50, 9)


def test_taken_targets_keep_the_numbers() -> None:
    targets = make_targets(make_world(), labelled=True)
    rows = np.array([0, 5, 200])
    part = targets.take(rows)
    assert part.types is not None
    assert part.n_populations == 3
    assert part.n_types == 3
    np.testing.assert_array_equal(part.populations, targets.populations[rows])
    np.testing.assert_array_equal(part.map, targets.map[rows])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_learns_the_same_task() -> None:
    world = make_world()
    student = distil(world.counts, world.library_size, make_targets(world, labelled=True), config=QUICK, device="cuda")
    answer = predict(student, world.counts, world.library_size)
    assert student.mean.device.type == "cpu"
    assert (answer.log_posterior.argmax(axis=1) == world.truth).mean() > 0.97
