"""`scrcl_infer.write_table`: tables that pandas and pyarrow read back, whatever the block size."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from scrcl_infer import write_table
from scrcl_infer.result import AssignedBlock
from scrcl_infer.target import STDOUT, Target
from scrcl_infer.write import open_sink

N = 23
TYPES = ("CD4 T, naive", 'so-called "B"', "NK\tbright", "β cell")
COLUMNS = ["cell", "scrcl_cell_type", "scrcl_population", "scrcl_confidence", "scrcl_margin"]
NAMES = np.array([f"AAAC-{i}" for i in range(N)], dtype=object)
MANIFEST: Any = SimpleNamespace(
    populations=tuple(SimpleNamespace(name=f"P{i}") for i in range(1, 4)),
    cell_types=tuple(SimpleNamespace(name=name) for name in TYPES),
    encoder=SimpleNamespace(dim=2),
    levels=(),
)
SOURCE: Any = SimpleNamespace(path=None, n_cells=N, obs_names=lambda: NAMES)


def answers() -> AssignedBlock:
    rng = np.random.default_rng(0)
    cell_type = rng.integers(-1, 4, N).astype(np.int32)
    return AssignedBlock(
        start=0,
        population=rng.integers(-1, 3, N).astype(np.int32),
        cell_type=cell_type,
        confidence=rng.random(N, dtype=np.float32),
        margin=rng.random(N, dtype=np.float32),
        embedding=np.zeros((N, 2), np.float32),
        map=np.zeros((N, 2), np.float32),
    )


def write(path: Path, size: int = N, **how: Any) -> None:
    block = answers()
    with open_sink(Target(path, **how), SOURCE, MANIFEST) as sink:
        for i in range(0, N, size):
            parts = {k: v[i : i + size] for k, v in vars(block).items() if v is not None and k != "start"}
            sink.write(AssignedBlock(start=i, **parts))
        sink.finish({"model": "tiny"})


def check(table: pd.DataFrame) -> None:
    block = answers()
    assert list(table.columns) == COLUMNS
    assert table["cell"].tolist() == NAMES.tolist()
    assert table["scrcl_cell_type"].tolist() == [(*TYPES, "unknown")[i] for i in block.cell_type]
    assert table["scrcl_population"].tolist() == [("P1", "P2", "P3", "unknown")[i] for i in block.population]
    np.testing.assert_allclose(table["scrcl_confidence"], block.confidence, atol=5.1e-7)
    np.testing.assert_allclose(table["scrcl_margin"], block.margin, atol=5.1e-7)


@pytest.mark.parametrize(("name", "comma"), [("o.csv", ","), ("o.tsv", "\t"), ("o.csv.gz", ","), ("o.tsv.gz", "\t")])
def test_pandas_reads_the_text(tmp_path: Path, name: str, comma: str) -> None:
    write(tmp_path / name)
    check(pd.read_csv(tmp_path / name, sep=comma))


def test_parquet_is_read_as_text_and_float32(tmp_path: Path) -> None:
    write(tmp_path / "o.parquet")
    table = parquet.read_table(tmp_path / "o.parquet")
    assert [str(kind) for kind in table.schema.types] == ["string", "string", "string", "float", "float"]
    check(table.to_pandas())
    np.testing.assert_array_equal(table["scrcl_margin"].to_numpy(), answers().margin)


@pytest.mark.parametrize("name", ["o.csv", "o.tsv.gz", "o.parquet"])
def test_the_bytes_do_not_depend_on_the_blocks(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_table, "ROW_GROUP", 10)  # so that groups fill up within, and across, blocks
    found = set()
    for size in (1, 7, 1000):
        write(tmp_path / f"{size}.{name}", size=size)
        found.add((tmp_path / f"{size}.{name}").read_bytes())
    assert len(found) == 1


def test_parquet_row_groups_have_a_fixed_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_table, "ROW_GROUP", 10)
    write(tmp_path / "o.parquet", size=3)
    file = parquet.ParquetFile(tmp_path / "o.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [10, 10, 3]
    check(file.read().to_pandas())


def test_the_prefix_names_the_columns(tmp_path: Path) -> None:
    write(tmp_path / "o.tsv", obs_prefix="lung_")
    header = (tmp_path / "o.tsv").read_text().splitlines()[0]
    assert header == "cell\tlung_cell_type\tlung_population\tlung_confidence\tlung_margin"


def test_standard_output_gets_the_same_tsv_as_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(STDOUT, size=5)
    write(tmp_path / "o.tsv")
    assert capsys.readouterr().out == (tmp_path / "o.tsv").read_text(encoding="utf-8")


def test_standard_output_stays_open(capsys: pytest.CaptureFixture[str]) -> None:
    write(STDOUT)
    sys.stdout.write("more\n")
    assert capsys.readouterr().out.endswith("more\n")


def test_a_closed_pipe_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(BrokenPipeError):
        write(STDOUT)


def test_gzip_holds_no_time_and_no_name(tmp_path: Path) -> None:
    write(tmp_path / "o.csv.gz")
    head = (tmp_path / "o.csv.gz").read_bytes()[:10]
    assert head[3] == 0  # no flags: no file name
    assert head[4:8] == bytes(4)  # no modification time
    write(tmp_path / "o.csv")
    assert gzip.decompress((tmp_path / "o.csv.gz").read_bytes()) == (tmp_path / "o.csv").read_bytes()


@pytest.mark.parametrize("name", ["o.csv", "o.csv.gz", "o.parquet"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_nothing(tmp_path: Path, name: str, kind: type[BaseException]) -> None:
    with pytest.raises(kind), open_sink(Target(tmp_path / name), SOURCE, MANIFEST) as sink:  # noqa: PT012
        sink.write(answers())
        raise kind
    assert list(tmp_path.iterdir()) == []
