"""The network against the same formulas in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from scrcl_train.student import Student, StudentConfig, predict, split_weights
from scrcl_train.student_input import fit_input_mean, log_normalise, take_roots
from tests.student_case import make_world, teach


def random_student(n_genes: int = 30, *, n_types: int = 4, seed: int = 0) -> Student:
    torch.manual_seed(seed)
    mean = torch.rand(n_genes).numpy()
    student = Student(mean, StudentConfig(hidden=16, dim=5, map_hidden=8), n_populations=3, n_types=n_types)
    student.map_centre.copy_(torch.tensor([3.0, -2.0]))
    student.map_scale.copy_(torch.tensor([5.0, 0.5]))
    return student.eval()


def random_cells(n_cells: int, n_genes: int, seed: int = 0) -> tuple[sp.csr_matrix, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.7, (n_cells, n_genes)).astype(np.float32)
    return sp.csr_matrix(counts), (counts.sum(axis=1) + rng.integers(1, 50, n_cells)).astype(np.float32)


def forward_in_numpy(
    student: Student, counts: NDArray[np.float32], library: NDArray[np.float32]
) -> list[NDArray[np.float64]]:
    w = {name: value.numpy().astype(np.float64) for name, value in student.state_dict().items()}
    root = (1 + counts.astype(np.float64) / library[:, None] * 1e4) ** 0.125
    v = np.round(58 * (root - 1)) * 8 / 58 - w["mean"]
    h = np.maximum(v @ w["first.weight"].T + w["first.bias"], 0)
    raw = h @ w["embedding_head.weight"].T + w["embedding_head.bias"]
    place = np.maximum(h @ w["map_head.0.weight"].T + w["map_head.0.bias"], 0)
    place = (place @ w["map_head.2.weight"].T + w["map_head.2.bias"]) * w["map_scale"] + w["map_centre"]
    return [
        raw / np.linalg.norm(raw, axis=1, keepdims=True),
        log_softmax(h @ w["population_head.weight"].T + w["population_head.bias"], axis=1),
        place,
        log_softmax(h @ w["type_head.weight"].T + w["type_head.bias"], axis=1),
    ]


def test_outputs_are_the_formulas() -> None:
    student = random_student()
    counts, library = random_cells(20, 30)
    answer = predict(student, counts, library)
    expected = forward_in_numpy(student, counts.toarray(), library)
    found = (answer.embedding, answer.log_posterior, answer.map, answer.log_type_posterior)
    for name, got, want in zip(("embedding", "population", "map", "type"), found, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=name)


def test_rows_are_unit_and_probabilities_sum_to_one() -> None:
    counts, library = random_cells(50, 30)
    answer = predict(random_student(), counts, library)
    np.testing.assert_allclose(np.linalg.norm(answer.embedding, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(logsumexp(answer.log_posterior, axis=1), 0, atol=1e-6)
    assert answer.log_type_posterior is not None
    np.testing.assert_allclose(logsumexp(answer.log_type_posterior, axis=1), 0, atol=1e-6)


def test_without_labels_there_is_no_type_head() -> None:
    student = random_student(n_types=0)
    counts, library = random_cells(3, 30)
    assert predict(student, counts, library).log_type_posterior is None
    assert not [name for name, _ in student.named_parameters() if name.startswith("type_head")]


@pytest.mark.parametrize("library", [0.0, 1e-30, 5.0])
def test_a_cell_without_counts_gives_finite_outputs(library: float) -> None:
    counts = sp.csr_matrix(np.zeros((1, 30), dtype=np.float32))
    answer = predict(random_student(), counts, np.array([library], dtype=np.float32))
    for part in (answer.embedding, answer.log_posterior, answer.map, answer.log_type_posterior):
        assert part is not None
        assert np.isfinite(part).all()


def test_counts_with_a_library_of_zero_give_finite_outputs() -> None:
    counts = sp.csr_matrix(np.full((1, 30), 1e6, dtype=np.float32))
    answer = predict(random_student(), counts, np.zeros(1, dtype=np.float32))
    assert np.isfinite(answer.embedding).all()
    assert np.isfinite(answer.log_posterior).all()


def test_a_cell_is_answered_the_same_alone_and_among_others() -> None:
    student = random_student()
    counts, library = random_cells(40, 30)
    together = predict(student, counts, library)
    order = np.random.default_rng(1).permutation(40)
    shuffled = predict(student, counts[order], library[order], block_size=7)
    np.testing.assert_allclose(shuffled.embedding, together.embedding[order], atol=1e-6)
    np.testing.assert_allclose(shuffled.log_posterior, together.log_posterior[order], atol=1e-5)


def test_depth_alone_does_not_change_the_answer() -> None:
    student = random_student()
    counts, library = random_cells(10, 30)
    deeper = predict(student, counts * 7, library * 7)
    np.testing.assert_allclose(deeper.embedding, predict(student, counts, library).embedding, atol=1e-5)


def test_predict_puts_the_mode_back_and_uses_no_dropout() -> None:
    student = random_student().train()
    counts, library = random_cells(10, 30)
    first, second = (predict(student, counts, library).embedding for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert student.training


def test_predict_takes_no_cells() -> None:
    counts, library = random_cells(4, 30)
    answer = predict(random_student(), counts[:0], library[:0])
    assert answer.embedding.shape == (0, 5)
    assert answer.map.shape == (0, 2)


def test_the_map_bends_no_feature_that_types_rest_on() -> None:
    student = random_student().train()
    counts, library = random_cells(8, 30)
    output = student(torch.from_numpy(counts.toarray()), torch.from_numpy(library)[:, None])
    torch.autograd.backward(output.map.square().sum())
    assert student.first.weight.grad is None
    assert student.map_head[0].weight.grad is not None


def test_logarithms_and_their_roots_are_of_scanpys_rates() -> None:
    world = make_world()
    counts, library = world.counts, np.asarray(world.counts.sum(axis=1)).ravel()
    data = AnnData(counts.copy())
    sc.pp.normalize_total(data, target_sum=1e4)
    roots = np.round(58 * ((1 + data.X.toarray().astype(np.float64)) ** 0.125 - 1)) * 8 / 58
    sc.pp.log1p(data)
    np.testing.assert_allclose(log_normalise(counts, library).toarray(), data.X.toarray(), rtol=1e-5)
    np.testing.assert_allclose(take_roots(counts, library).toarray(), roots, rtol=1e-6)
    np.testing.assert_allclose(fit_input_mean(counts, library), roots.mean(axis=0), rtol=1e-5)


def test_normalising_adds_up_entries_stored_twice_and_leaves_the_matrix_alone() -> None:
    twice = sp.csr_matrix((np.array([1.0, 2.0], np.float32), np.array([3, 3]), np.array([0, 2])), shape=(1, 5))
    logged = log_normalise(twice, np.array([10.0], dtype=np.float32))
    assert logged.toarray()[0, 3] == pytest.approx(np.log1p(3000))
    assert twice.nnz == 2


def test_rounded_weights_are_whole_numbers_of_8_bits_and_stay_as_they_are() -> None:
    student = random_student()
    before = student.first.weight.detach().clone()
    student.round_weights()
    whole, size = split_weights(student.first.weight.detach())
    assert whole.abs().max() == 127
    torch.testing.assert_close(whole * size[:, None], student.first.weight.detach())
    assert ((student.first.weight - before).abs() <= before.abs().amax(dim=1, keepdim=True) / 254 * 1.001).all()
    once = student.first.weight.detach().clone()
    student.round_weights()
    torch.testing.assert_close(student.first.weight.detach(), once, rtol=1e-6, atol=0)


def test_a_gene_with_all_counts_of_a_cell_fits_the_narrow_sums_of_older_processors() -> None:
    steps = random_student().count_steps(torch.tensor([[5e3] + [0.0] * 29]), torch.tensor([[5e3]]))
    assert 2 * steps.round().max() * 127 < 2**15
    assert steps[0, 1:].abs().max() == 0


def test_4000_genes() -> None:
    student = random_student(4000)
    counts, library = random_cells(5, 4000)
    expected = forward_in_numpy(student, counts.toarray(), library)
    np.testing.assert_allclose(predict(student, counts, library).embedding, expected[0], atol=1e-5)


def test_taught_student_tells_the_populations_apart_in_new_cells() -> None:
    _, student = teach(labelled=True)
    fresh = make_world(200, seed=9)
    answer = predict(student, fresh.counts, fresh.library_size)
    assert answer.log_type_posterior is not None
    assert (answer.log_posterior.argmax(axis=1) == fresh.truth).mean() > 0.97
    assert (answer.log_type_posterior.argmax(axis=1) == fresh.truth).mean() > 0.97
