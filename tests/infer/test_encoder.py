"""The encoder against numpy, and against itself: other neighbours, other block sizes, other threads, same bytes."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scrcl_infer.encoder import BATCH_ROWS, Encoder, EncoderOutput, available_threads
from scrcl_infer.errors import BundleIntegrityError, InputError
from tests.make_bundle import numpy_forward, onnx_model, random_counts, random_weights

# Widths that are no multiple of a SIMD register: where remainders would show.
AWKWARD = {"n_genes": 1001, "hidden": 127, "dim": 31, "n_populations": 29, "n_types": 13}
EVEN = {"n_genes": 512, "hidden": 64, "dim": 32, "n_populations": 16, "n_types": 8}


def as_bytes(output: EncoderOutput, rows: slice | np.ndarray = slice(None)) -> list[bytes]:
    values = (output.embedding, output.log_posterior, output.map, output.log_type_posterior)
    return [b"" if value is None else value[rows].tobytes() for value in values]


@pytest.mark.parametrize("n_types", [0, 4])
def test_agrees_with_numpy(n_types: int) -> None:
    weights = random_weights(n_types=n_types)
    counts, library_size = random_counts(300, 40)
    output = Encoder(onnx_model(weights, None), threads=1).run(counts, library_size)
    expected = numpy_forward(weights, counts, library_size)
    np.testing.assert_allclose(output.embedding, expected["embedding"], atol=2e-6)
    np.testing.assert_allclose(output.log_posterior, expected["log_posterior"], atol=5e-5)
    np.testing.assert_allclose(output.map, expected["map"], atol=5e-5)
    if n_types:
        assert output.log_type_posterior is not None
        np.testing.assert_allclose(output.log_type_posterior, expected["log_type_posterior"], atol=5e-5)
    else:
        assert output.log_type_posterior is None


@pytest.mark.parametrize("sizes", [AWKWARD, EVEN], ids=["awkward", "even"])
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_same_bytes_whatever_the_threads(sizes: dict[str, int], threads: int) -> None:
    model = onnx_model(random_weights(**sizes), None)
    counts, library_size = random_counts(3 * BATCH_ROWS + 17, sizes["n_genes"])
    reference = as_bytes(Encoder(model, threads=1).run(counts, library_size))
    assert as_bytes(Encoder(model, threads=threads).run(counts, library_size)) == reference


@pytest.mark.parametrize("sizes", [AWKWARD, EVEN], ids=["awkward", "even"])
@pytest.mark.parametrize("block", [1, 7, 100, BATCH_ROWS])
def test_same_bytes_whatever_the_block_size(sizes: dict[str, int], block: int) -> None:
    encoder = Encoder(onnx_model(random_weights(**sizes), None), threads=2)
    counts, library_size = random_counts(BATCH_ROWS + 9, sizes["n_genes"])
    whole = encoder.run(counts, library_size)
    for start in range(0, len(counts), block):
        rows = slice(start, start + block)
        assert as_bytes(encoder.run(counts[rows], library_size[rows])) == as_bytes(whole, rows)


def test_same_bytes_whatever_the_neighbours() -> None:
    encoder = Encoder(onnx_model(random_weights(**AWKWARD), None), threads=1)
    counts, library_size = random_counts(2 * BATCH_ROWS, AWKWARD["n_genes"])
    whole = encoder.run(counts, library_size)
    rng = np.random.default_rng(0)
    for _ in range(3):
        order = rng.permutation(len(counts))
        assert as_bytes(encoder.run(counts[order], library_size[order])) == as_bytes(whole, order)


def test_a_broken_cell_does_not_touch_its_neighbours() -> None:
    encoder = Encoder(onnx_model(random_weights(), None), threads=1)
    counts, library_size = random_counts(50, 40)
    whole = encoder.run(counts, library_size)
    broken = counts.copy()
    broken[20] = np.nan
    others = np.delete(np.arange(50), 20)
    output = encoder.run(broken, library_size)
    assert as_bytes(output, others) == as_bytes(whole, others)
    assert not np.isfinite(output.map[20]).any()


def test_an_empty_cell_has_finite_answers() -> None:
    output = Encoder(onnx_model(random_weights(), None), threads=1).run(
        np.zeros((1, 40), np.float32), np.zeros((1, 1), np.float32)
    )
    assert np.isfinite(output.embedding).all()
    assert np.isfinite(output.log_posterior).all()


def test_no_cells() -> None:
    output = Encoder(onnx_model(random_weights(), None)).run(
        np.empty((0, 40), np.float32), np.empty((0, 1), np.float32)
    )
    assert output.embedding.shape == (0, 8)
    assert output.log_posterior.shape == (0, 5)


def test_other_memory_layouts_give_the_same_bytes() -> None:
    encoder = Encoder(onnx_model(random_weights(), None), threads=1)
    counts, library_size = random_counts(200, 40)
    strided = np.repeat(counts, 2, axis=1)[:, ::2]
    assert not strided.flags.c_contiguous
    assert as_bytes(encoder.run(strided, library_size)) == as_bytes(encoder.run(counts, library_size))
    assert as_bytes(encoder.run(np.asfortranarray(counts), library_size)) == as_bytes(encoder.run(counts, library_size))


class Spy:
    """Stands before a session and notes the shape and thread of every call, and how many run at once."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.shapes: set[tuple[int, ...]] = set()
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._together = threading.Event()

    def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self.shapes.add(feed["counts"].shape)
            if self._at_once > 1:
                self._together.set()
        # Long enough for a second worker to come in, should there be one.
        self._together.wait(0.2)
        try:
            values: list[np.ndarray] = self.session.run(names, feed)
            return values
        finally:
            with self._lock:
                self._at_once -= 1


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_honoured_and_calls_have_one_shape(threads: int) -> None:
    encoder = Encoder(onnx_model(random_weights(), None), threads=threads)
    spy = Spy(encoder._session)
    encoder._session = spy
    encoder.run(*random_counts(4 * BATCH_ROWS + 1, 40))
    assert spy.most_at_once == threads
    assert spy.shapes == {(BATCH_ROWS, 40)}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc, which is Linux")
def test_the_session_starts_no_threads_of_its_own() -> None:
    before = len(list(Path("/proc/self/task").iterdir()))
    encoder = Encoder(onnx_model(random_weights(), None), threads=8)
    encoder.run(*random_counts(10, 40))
    # Threads of earlier tests may end meanwhile.
    assert len(list(Path("/proc/self/task").iterdir())) <= before


def test_reads_the_contract_id_and_widths() -> None:
    encoder = Encoder(onnx_model(random_weights(n_types=0), "abc"))
    assert encoder.contract_id == "abc"
    assert Encoder(onnx_model(random_weights(), None)).contract_id is None
    assert encoder.n_genes == 40
    assert [encoder.width(name) for name in ("embedding", "log_posterior", "map", "log_type_posterior")] == [8, 5, 2, 0]


@pytest.mark.parametrize(
    ("counts", "library"), [((3, 39), (3, 1)), ((3, 40), (3,)), ((3, 40), (2, 1)), ((40,), (1, 1))]
)
def test_refuses_other_shapes(counts: tuple[int, ...], library: tuple[int, ...]) -> None:
    encoder = Encoder(onnx_model(random_weights(), None))
    with pytest.raises(InputError, match=r"shape \(N, 40\)"):
        encoder.run(np.zeros(counts, np.float32), np.zeros(library, np.float32))


def test_refuses_a_file_that_is_no_model() -> None:
    with pytest.raises(BundleIntegrityError, match="cannot load the encoder"):
        Encoder(b"not an onnx file")


def test_refuses_other_names() -> None:
    model = onnx_model(random_weights(), None).replace(b"embedding", b"embeddinx")
    with pytest.raises(BundleIntegrityError, match=r"outputs \['embedding'\] are missing"):
        Encoder(model)


@pytest.mark.parametrize("threads", [0, -1])
def test_refuses_no_threads(threads: int) -> None:
    with pytest.raises(InputError, match="1 or more"):
        Encoder(onnx_model(random_weights(), None), threads=threads)


def fake_root(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


V1 = "4:memory:/job\n3:cpu,cpuacct:/job\n"
QUOTAS = {
    "no cgroup at all": ({}, 8),
    "v2 without quota": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
    "v2": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
    "v2 rounds up": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
    "v2 below one CPU": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "20000 100000\n"}, 1),
    "v2 more than there are": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 8),
    "v2 parent is tighter": (
        {
            "proc/self/cgroup": "0::/slice/pod\n",
            "sys/fs/cgroup/slice/pod/cpu.max": "600000 100000\n",
            "sys/fs/cgroup/slice/cpu.max": "200000 100000\n",
        },
        2,
    ),
    "v2 path of the host, files of the container": (
        {"proc/self/cgroup": "0::/kubepods/pod7/abc\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"},
        4,
    ),
    "v1": (
        {
            "proc/self/cgroup": V1,
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "500000\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        },
        5,
    ),
    "v1 mounted as cpu": (
        {
            "proc/self/cgroup": V1,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        3,
    ),
    "v1 without quota": (
        {
            "proc/self/cgroup": V1,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        8,
    ),
    "v1 beside v2": (
        {
            "proc/self/cgroup": V1 + "0::/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "700000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/unified/cpu.max": "600000 100000",
        },
        6,
    ),
    "a file that makes no sense": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "many few\n"}, 8),
    "a quota of another group": ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/b/cpu.max": "100000 100000\n"}, 8),
}


@pytest.mark.parametrize(("files", "expected"), QUOTAS.values(), ids=QUOTAS)
def test_threads_follow_the_quota(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert available_threads(root=fake_root(tmp_path, files)) == expected


def test_threads_follow_the_affinity_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert available_threads(root=tmp_path) == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_threads(root=tmp_path) == 1


def test_threads_on_this_machine() -> None:
    assert 1 <= available_threads() <= (os.cpu_count() or math.inf)
