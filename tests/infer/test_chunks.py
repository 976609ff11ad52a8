"""Raw chunk reading against h5py's own slicing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scrcl_infer import chunks
from scrcl_infer.chunks import ChunkReader, Pool, RowStream
from scrcl_infer.errors import InputError

LAYOUTS: dict[str, dict[str, Any]] = {
    "gzip": {"chunks": (97,), "compression": "gzip"},
    "shuffle": {"chunks": (97,), "compression": "gzip", "shuffle": True},
    "plain": {"chunks": (97,)},
    "lzf": {"chunks": (97,), "compression": "lzf"},
    "checksum": {"chunks": (97,), "compression": "gzip", "fletcher32": True},
    "contiguous": {},
}
RAW = {"gzip", "shuffle", "plain"}


def write(path: Path, values: np.ndarray[Any, Any], **layout: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, **layout)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", ">f4", ">i2", "bool"])
def test_reads_what_h5py_reads(tmp_path: Path, layout: str, dtype: str) -> None:
    values = np.random.default_rng(1).integers(0, 2 if dtype == "bool" else 100, 1234).astype(dtype)
    path = write(tmp_path / "a.h5", values, **LAYOUTS[layout])
    with h5py.File(path) as file, path.open("rb") as raw:
        reader = ChunkReader(file["x"], fd=raw.fileno())
        assert reader.is_raw == (layout in RAW)
        for start, stop in [(0, 1234), (0, 0), (96, 98), (97, 194), (500, 501), (1200, 1234)]:
            got = reader.read(start, stop)
            assert got.dtype == values.dtype
            np.testing.assert_array_equal(got, file["x"][start:stop])


@pytest.mark.parametrize("chunk", [(7, 5), (50, 3), (100, 40), (1, 40)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_two_dimensions(tmp_path: Path, chunk: tuple[int, int], shuffle: bool) -> None:  # noqa: FBT001 - a parameter
    values = np.random.default_rng(2).random((100, 40))
    path = write(tmp_path / "a.h5", values, chunks=chunk, compression="gzip", shuffle=shuffle)
    with h5py.File(path) as file, path.open("rb") as raw:
        reader = ChunkReader(file["x"], fd=raw.fileno(), dtype=np.float32)
        assert reader.is_raw
        np.testing.assert_array_equal(reader.read(3, 88), values[3:88].astype(np.float32))


def test_tall_bands_are_cut_to_bound_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "BAND_BYTES", 20 * 40 * 8)
    values = np.random.default_rng(2).random((100, 40))
    path = write(tmp_path / "a.h5", values, chunks=(100, 10), compression="gzip")
    with h5py.File(path) as file, path.open("rb") as raw, Pool(2) as pool:
        reader = ChunkReader(file["x"], fd=raw.fileno())
        assert reader.group_rows == 20
        stream = RowStream(reader, pool)
        np.testing.assert_array_equal(np.concatenate([stream.take(33) for _ in range(4)]), values)


def test_chunks_never_written_are_the_fill_value(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", (100,), "f4", chunks=(10,), compression="gzip", fillvalue=3)
        data[25:35] = 7
    with h5py.File(path) as file, path.open("rb") as raw:
        reader = ChunkReader(file["x"], fd=raw.fileno())
        assert reader.is_raw
        np.testing.assert_array_equal(reader.read(0, 100), file["x"][:])


def test_chunks_with_a_skipped_filter_are_left_to_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", (20,), "f4", chunks=(10,), compression="gzip")
        data[:10] = 1
        data.id.write_direct_chunk((10,), np.full(10, 5, "f4").tobytes(), filter_mask=1)
    with h5py.File(path) as file, path.open("rb") as raw:
        reader = ChunkReader(file["x"], fd=raw.fileno())
        assert not reader.is_raw
        np.testing.assert_array_equal(reader.read(0, 20), [1] * 10 + [5] * 10)


@pytest.mark.parametrize("threads", [1, 2, 4])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(takes=st.lists(st.integers(0, 700), max_size=12), start=st.integers(0, 1200))
def test_stream_gives_every_row_once(
    tmp_path_factory: pytest.TempPathFactory, threads: int, takes: list[int], start: int
) -> None:
    values = np.arange(1234, dtype=np.int64)
    path = write(tmp_path_factory.mktemp("s") / "a.h5", values, chunks=(97,), compression="gzip")
    with h5py.File(path) as file, path.open("rb") as raw, Pool(threads) as pool:
        reader = ChunkReader(file["x"], fd=raw.fileno())
        reader.group_rows = 194  # several groups even in so short an array
        stream = RowStream(reader, pool, start=start)
        at = start
        for n in takes:
            got = stream.take(n)
            np.testing.assert_array_equal(got, values[at : at + n])
            at += len(got)
        np.testing.assert_array_equal(stream.take(5000), values[at:])


def test_conversion_happens_on_the_way(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", np.array([1.5, 1e300]), chunks=(2,), compression="gzip")
    with h5py.File(path) as file, path.open("rb") as raw:
        for fd in (None, raw.fileno()):
            got = ChunkReader(file["x"], fd=fd, dtype=np.float32).read(0, 2)
            assert got.dtype == np.float32
            assert got[0] == 1.5
            assert np.isinf(got[1])


def test_damage_is_an_input_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", np.arange(1000.0), chunks=(1000,), compression="gzip")
    with h5py.File(path) as file:
        info = file["x"].id.get_chunk_info(0)
    raw = bytearray(path.read_bytes())
    raw[info.byte_offset + 10 : info.byte_offset + 60] = bytes(50)
    path.write_bytes(raw)
    with h5py.File(path) as file, path.open("rb") as stream:
        for fd in (None, stream.fileno()):
            with pytest.raises(InputError, match="damaged"):
                ChunkReader(file["x"], fd=fd).read(0, 1000)


def test_text_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", np.array([b"a", b"b"]))
    with h5py.File(path) as file, pytest.raises(InputError, match="expected numbers"):
        ChunkReader(file["x"], fd=None)


def test_pool_of_one_works_in_the_caller() -> None:
    seen: list[int] = []

    def call() -> np.ndarray[Any, Any]:
        seen.append(1)
        return np.zeros(1)

    with Pool(1) as pool:
        task = pool.submit(call)
        assert seen == []
        task.result()
    assert seen == [1]


def test_errors_in_workers_reach_the_caller() -> None:
    def fail() -> np.ndarray[Any, Any]:
        msg = "no"
        raise InputError(msg)

    with Pool(3) as pool:
        tasks = [pool.submit(fail) for _ in range(5)]
        for task in tasks:
            with pytest.raises(InputError, match="no"):
                task.result()
