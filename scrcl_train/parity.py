"""Does onnxruntime answer as torch does? Asked of every encoder before it is exported."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.contract import TENSORS, Parity
from scrcl_infer.errors import ExportError
from scrcl_infer.runtime import import_onnxruntime
from scrcl_train.student import Prediction, Student, predict

MAX_ABS_DIFF = 1e-5
"""Largest difference of an embedding entry that is put down to the order of additions in float32."""
NEAR_TIE = 1e-4
"""Lead of the best answer over the second, in natural log, that the order of additions in float32 can turn round."""
BLOCK_SIZE = 512


class NearTieError(ExportError):
    """Labels differ, but only for cells that are a near tie between their two best answers."""


def check_parity(student: Student, model: bytes, counts: sp.csr_matrix, library_size: NDArray[np.float32]) -> Parity:
    """Compare both runtimes on real cells.

    Parameters
    ----------
    student
        The trained network.
    model
        The same as a serialised ONNX model.
    counts
        (m, G) raw counts of real cells.
    library_size
        (m,) or (m, 1) total counts over all genes.

    Raises
    ------
    ExportError
        An embedding entry differs by more than `MAX_ABS_DIFF`, a cell gets another population or type, or an output for
        a cell without counts is not finite. `NearTieError` where all such cells are near ties.
    """
    torch_answer = predict(student, counts, library_size)
    onnx_answer = run_onnx(model, counts, library_size)
    diff = float(np.abs(torch_answer.embedding - onnx_answer.embedding).max(initial=0.0))
    if not diff <= MAX_ABS_DIFF:
        msg = (
            f"The exported encoder's embedding differs by {diff:.2e} from the trained one's, more than "
            f"{MAX_ABS_DIFF:.0e}. Nothing was written. Train with another seed, and report the versions of torch, onnx "
            "and onnxruntime."
        )
        raise ExportError(msg)
    same = _answers(torch_answer) == _answers(onnx_answer)
    agree = same.all(axis=1)
    if not agree.all():
        rows = np.flatnonzero(~agree)
        gaps = [_gap(torch_answer, int(row)) for row in rows]
        msg = (
            f"The exported encoder gives {int((~agree).sum())} of {agree.size} cells another population or type than "
            f"the trained one, first row {rows[0]}, whose two best lie {gaps[0]:.1e} apart (natural log). "
            "Nothing was written. Train with another seed."
        )
        raise NearTieError(msg) if max(gaps) < NEAR_TIE else ExportError(msg)
    _check_empty_cell(model, student.n_genes)
    return Parity(
        max_abs_diff=diff, label_agreement=float(agree.mean()) if agree.size else 1.0, n_cells=int(agree.size)
    )


def run_onnx(model: bytes, counts: sp.csr_matrix, library_size: NDArray[np.float32]) -> Prediction:
    """Run a serialised encoder over cells with onnxruntime on one CPU thread; arguments as for `check_parity`."""
    ort = import_onnxruntime()

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    library = np.asarray(library_size, dtype=np.float32).reshape(-1, 1)
    blocks = []
    for start in range(0, max(counts.shape[0], 1), BLOCK_SIZE):
        rows = slice(start, start + BLOCK_SIZE)
        dense = counts[rows].toarray().astype(np.float32, copy=False)
        blocks.append(session.run(names, {TENSORS.counts: dense, TENSORS.library_size: library[rows]}))
    joined = dict(zip(names, (np.concatenate(parts) for parts in zip(*blocks, strict=True)), strict=True))
    return Prediction(
        joined[TENSORS.embedding],
        joined[TENSORS.log_posterior],
        joined[TENSORS.map],
        joined[TENSORS.components],
        joined[TENSORS.rarity],
        joined.get(TENSORS.log_type_posterior),
    )


def _answers(answer: Prediction) -> NDArray[np.int64]:
    """Best population and, with a type head, best type of each cell, (m, 1 or 2)."""
    heads = [answer.log_posterior]
    if answer.log_type_posterior is not None:
        heads.append(answer.log_type_posterior)
    return np.stack([head.argmax(axis=1) for head in heads], axis=1).astype(np.int64)


def _gap(answer: Prediction, row: int) -> float:
    """Smallest lead of the best over the second best among the heads, in natural log units."""
    heads = [answer.log_posterior] + ([] if answer.log_type_posterior is None else [answer.log_type_posterior])
    tops = [np.sort(head[row])[::-1] for head in heads if head.shape[1] > 1]
    return min((float(top[0] - top[1]) for top in tops), default=float("inf"))


def _check_empty_cell(model: bytes, n_genes: int) -> None:
    answer = run_onnx(model, sp.csr_matrix(np.zeros((1, n_genes), dtype=np.float32)), np.zeros(1, dtype=np.float32))
    parts = [answer.embedding, answer.log_posterior, answer.map, answer.log_type_posterior]
    if not all(np.isfinite(part).all() for part in parts if part is not None):
        msg = "The exported encoder's answer for a cell without counts is not finite. Train with another seed."
        raise ExportError(msg)
