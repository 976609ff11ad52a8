"""Run `encoder.onnx`: the onnxruntime session, its threads, and batches that leave no trace in the answer.

A cell's answer must not depend on the cells beside it or on the number of threads. Inside onnxruntime it can:
element-wise kernels work through a tensor in SIMD steps and finish the rest, or the end of each thread's share, with
scalar code that rounds differently. So every call of the session has the same shape, a row count that leaves no rest,
and one thread; several threads run several calls side by side. That is also the faster way: no thread waits for another
inside a layer.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.contract import TENSORS
from scrcl_infer.errors import BundleIntegrityError, InputError
from scrcl_infer.runtime import import_onnxruntime

logger = logging.getLogger(__name__)

BATCH_ROWS = 128
"""Rows of every call. A multiple of 16, the floats in the widest SIMD register, so that no tensor has a rest. At 2000
genes 64 to 256 rows cost the least CPU time a cell (16 and 1024 cost a quarter more), and 128 are 1 MB a tensor."""

CONTRACT_ID_KEY = "contract_id"
"""Key of `Manifest.contract_id` among the ONNX file's metadata."""

_REQUIRED_OUTPUTS = (TENSORS.embedding, TENSORS.log_posterior, TENSORS.map)


@dataclass(frozen=True)
class EncoderOutput:
    """What the encoder says of N cells."""

    embedding: NDArray[np.float32]
    """(N, D) unit rows."""
    log_posterior: NDArray[np.float32]
    """(N, K) natural log, over populations."""
    map: NDArray[np.float32]
    """(N, 2) place on the training UMAP."""
    log_type_posterior: NDArray[np.float32] | None
    """(N, T) natural log, over types; None without a type head."""
    components: NDArray[np.float32] | None = None
    """(N, Q + 2) the input's mean, components and length; None in bundles of schema 1."""
    rarity: NDArray[np.float32] | None = None
    """(N, C) sum of the rarities of the cell's genes in each class; None in bundles of schemas 1 to 5."""


class Encoder:
    """The per-cell network of a bundle, ready to run on the CPU.

    Parameters
    ----------
    model
        Serialised ONNX model with the inputs and outputs of `scrcl_infer.contract.TensorNames`.
    threads
        Calls run side by side; None takes `available_threads()`. The answer does not depend on it.

    Raises
    ------
    BundleIntegrityError
        onnxruntime cannot load the model, or its inputs or outputs are not those of the contract.
    InputError
        `threads` is below 1.
    """

    def __init__(self, model: bytes, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            msg = f"threads must be 1 or more, was {threads}. Leave it out to use the CPUs that this process may use."
            raise InputError(msg)
        self.threads = threads or available_threads()
        self._session = _open_session(model)
        self.inputs: dict[str, tuple[int | str | None, ...]] = {
            node.name: tuple(node.shape) for node in self._session.get_inputs()
        }
        self.outputs: dict[str, tuple[int | str | None, ...]] = {
            node.name: tuple(node.shape) for node in self._session.get_outputs()
        }
        _check_names(set(self.inputs), set(self.outputs))
        self._output_names = [name for name in TENSORS if name in self.outputs]

    @property
    def n_genes(self) -> int:
        """Columns G that `counts` must have."""
        return _width(self.inputs, TENSORS.counts)

    @property
    def contract_id(self) -> str | None:
        """The contract id stamped into the ONNX file, None where there is none."""
        metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return metadata.get(CONTRACT_ID_KEY)

    def width(self, output: str) -> int:
        """Return the number of columns of an output, 0 where the encoder has no such output."""
        return _width(self.outputs, output) if output in self.outputs else 0

    def run(self, counts: NDArray[np.float32], library_size: NDArray[np.float32]) -> EncoderOutput:
        """Encode cells; each row of the answer depends on that row of the input alone, to the last bit.

        Parameters
        ----------
        counts
            (N, G) float32, raw counts in the bundle's gene order.
        library_size
            (N, 1) float32, each cell's total over all its genes.

        Raises
        ------
        InputError
            A shape is not as above.
        """
        if counts.ndim != 2 or counts.shape[1] != self.n_genes or library_size.shape != (counts.shape[0], 1):
            msg = (
                f"the encoder takes counts of shape (N, {self.n_genes}) and library_size of shape (N, 1), "
                f"was given {counts.shape} and {library_size.shape}. Put the genes in the bundle's order first."
            )
            raise InputError(msg)
        n_cells = counts.shape[0]
        results = {name: np.empty((n_cells, self.width(name)), np.float32) for name in self._output_names}

        def encode(rows: slice) -> None:
            feed = {TENSORS.counts: _pad(counts[rows]), TENSORS.library_size: _pad(library_size[rows])}
            for name, value in zip(self._output_names, self._session.run(self._output_names, feed), strict=True):
                results[name][rows] = value[: min(rows.stop, n_cells) - rows.start]

        batches = [slice(start, start + BATCH_ROWS) for start in range(0, n_cells, BATCH_ROWS)]
        workers = min(self.threads, len(batches))
        if workers <= 1:
            for rows in batches:
                encode(rows)
        else:
            # The session lets go of Python's lock while it runs, and may be called from several threads.
            with ThreadPoolExecutor(workers, thread_name_prefix="scrcl-encoder") as pool:
                list(pool.map(encode, batches))
        return EncoderOutput(
            embedding=results[TENSORS.embedding],
            log_posterior=results[TENSORS.log_posterior],
            map=results[TENSORS.map],
            log_type_posterior=results.get(TENSORS.log_type_posterior),
            components=results.get(TENSORS.components),
            rarity=results.get(TENSORS.rarity),
        )


def available_threads(*, root: Path = Path("/")) -> int:
    """Return the number of threads that this process can keep busy, at least 1.

    The CPUs of its affinity mask, bounded by the cgroup's CPU quota (v1 and v2) rounded up: a container that is allowed
    1.5 CPUs gets 2. onnxruntime itself looks at neither.

    Parameters
    ----------
    root
        Where `proc` and `sys` are found; for tests.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = min(_cgroup_quotas(root), default=math.inf)
    return max(1, cpus if math.isinf(quota) else min(cpus, math.ceil(quota)))


def _cgroup_quotas(root: Path) -> Iterator[float]:
    """Yield the CPU quota, in CPUs, of every cgroup this process is in, from its own up to the root."""
    lines = (_read(root / "proc/self/cgroup") or "").splitlines()
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        mounts = []
        if not controllers:  # v2: one hierarchy, beside v1's in a mixed set-up
            mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif "cpu" in controllers.split(","):
            mounts = [root / "sys/fs/cgroup" / name for name in dict.fromkeys((controllers, "cpu"))]
        for mount in mounts:
            # A parent's quota bounds its children; inside a container the path may not exist, the mount's own files do.
            folder = mount / group.strip("/")
            for level in [folder, *folder.parents]:
                quota = _quota_v2(level) if not controllers else _quota_v1(level)
                if quota is not None:
                    yield quota
                if level == mount:
                    break


def _quota_v2(folder: Path) -> float | None:
    words = (_read(folder / "cpu.max") or "").split()  # 'max 100000' or '150000 100000', microseconds
    return _ratio(words[0], words[1]) if len(words) == 2 else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    return _ratio(quota, period) if quota and period else None


def _ratio(quota: str, period: str) -> float | None:
    """Quota in CPUs; None for 'max', -1 and anything that is not a number."""
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cpus if cpus > 0 else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _open_session(model: bytes) -> Any:  # noqa: ANN401 - onnxruntime has no types
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # All calls have one shape: the arena would only keep the largest work space for ever.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3  # errors only: its warnings are about devices that are not asked for
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class of their own
        msg = f"onnxruntime {ort.__version__} cannot load the encoder: {error}"
        raise BundleIntegrityError(msg) from error


def _check_names(inputs: set[str], outputs: set[str]) -> None:
    expected = {TENSORS.counts, TENSORS.library_size}
    missing = sorted(set(_REQUIRED_OUTPUTS) - outputs)
    if inputs != expected or missing:
        msg = (
            f"encoder: its inputs are {sorted(inputs)}, expected {sorted(expected)}; outputs {missing} are missing "
            f"from {sorted(outputs)}. It was not exported by scrcl-train: get the bundle again."
        )
        raise BundleIntegrityError(msg)


def _width(nodes: dict[str, tuple[int | str | None, ...]], name: str) -> int:
    shape = nodes[name]
    if len(shape) != 2 or not isinstance(shape[1], int):
        msg = f"encoder: '{name}' has shape {shape}, expected (N, a fixed number). Export the bundle again."
        raise BundleIntegrityError(msg)
    return shape[1]


def _pad(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n <= BATCH_ROWS, m) -> (BATCH_ROWS, m), zeros below."""
    if rows.shape[0] == BATCH_ROWS:
        return np.ascontiguousarray(rows, np.float32)
    padded = np.zeros((BATCH_ROWS, rows.shape[1]), np.float32)
    padded[: rows.shape[0]] = rows
    return padded
