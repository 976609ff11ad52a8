from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from anndata import AnnData

from scrcl_infer.contract import FILES
from scrcl_train import cli, trainer
from scrcl_train.cli_words import DeviceChoice, is_no_path
from scrcl_train.device import DEVICES
from scrcl_train.options import TrainOptions

ENVIRONMENT = {**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1"}


def run(*arguments: str | Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    code = "from scrcl_train.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, **kwargs)  # type: ignore[call-overload,no-any-return]


def test_help_teaches_and_loads_nothing_heavy() -> None:
    top, fit = run("--help"), run("fit", "--help")
    assert top.returncode == fit.returncode == 0
    assert "scrcl-train DATA.h5ad -o BUNDLE" in top.stdout
    for option in ("--labels", "--batch", "--n-populations", "--preset", "--epochs", "--seed", "--device", "--layer",
                   "--write-h5ad", "--resume", "--markers", "--ontology-ids"):  # fmt: skip
        assert option in fit.stdout
    probe = "import sys, scrcl_train.cli; print([m for m in ('torch', 'scanpy', 'numpy') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_version_is_one_line() -> None:
    assert run("--version").stdout.split()[0] == "scrcl-train"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("missing.h5ad", "-o", "out"), 3, "no file"),
        (("missing.h5ad", "-o", "out", "-k", "many"), 2, "'auto'"),
        (("missing.h5ad", "-o", "out", "--preset", "nothing"), 2, "default, spatial, paper, paper:spatial"),
        (("missing.h5ad", "-o", "out", "--device", "tpu"), 2, "'cuda'"),
        (("evalute", "missing.h5ad"), 2, "Did you mean 'scrcl-train evaluate'?"),
        (("missing", "-o", "out"), 2, "Commands: fit, tissue, demo, evaluate, biology"),
    ],
)
def test_mistakes_get_one_message_and_their_own_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int, text: str
) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_devices_are_those_of_training() -> None:
    assert tuple(choice.value for choice in DeviceChoice) == DEVICES


@pytest.mark.parametrize("word", ["evaluate.h5ad", "-o", "cells"])
def test_what_may_be_data_is_taken_for_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cells").touch()
    assert not is_no_path(word)
    assert is_no_path("evaluate")


def test_names_are_asked_for_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TrainOptions] = []

    def remember(data: Path, output: Path, options: TrainOptions, *, quiet: bool) -> None:
        del data, output, quiet
        asked.append(options)
        raise SystemExit

    monkeypatch.setattr(cli, "fit", remember)
    for words in (
        ("--labels", "fine,broad", "--ontology-ids", "ids.csv"),
        ("--markers", "m.csv", "--gene-column", "symbol"),
        (),
        ("--labels", " fine type, broad"),
    ):
        monkeypatch.setattr(sys, "argv", ["scrcl-train", "cells.h5ad", "-o", "model", *words])
        with pytest.raises(SystemExit):
            cli.main()
    assert [options.label_keys for options in asked] == [("fine", "broad"), (), (), ("fine type", "broad")]
    assert [options.ontology_ids for options in asked] == [Path("ids.csv"), None, None, None]
    assert [options.markers for options in asked] == [None, Path("m.csv"), None, None]
    assert [options.gene_column for options in asked] == [None, "symbol", None, None]


def test_without_the_training_packages_the_command_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('blocked', name='torch')")
    (tmp_path / "cells.h5ad").touch()
    code = "import sys; sys.path.insert(0, '.'); from scrcl_train.cli import main; main()"
    command = [sys.executable, "-c", code, "cells.h5ad", "-o", "model"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == 1
    assert done.stderr.endswith("torch is not installed. Training needs more: pip install 'scrcl[train]'\n")


def test_training_prints_the_bundle_alone_and_resumes(
    tmp_path: Path, simulated: AnnData, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder on stdout, all else on stderr; a lengthened run goes on from its last checkpoint."""
    monkeypatch.chdir(tmp_path)
    simulated[:150].copy().write_h5ad("cells.h5ad")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scrcl-train", "cells.h5ad", "-o", "model", "-k", "5", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    code, out, err = call("--epochs", "3")
    assert (code, out) == (0, "model\n"), err
    assert Path("model", FILES.manifest).is_file()
    assert "5 populations" in err
    code, _, err = call("--epochs", "5", "--resume", "--force")
    assert code == 0, err
    assert len(Path("model.run", "metrics.jsonl").read_text().splitlines()) == 5
    code, out, err = call("--epochs", "5")
    assert (code, out) == (6, "")
    assert "--force" in err


@pytest.mark.parametrize("interrupted", ["write_checkpoint", "append_metrics"])
def test_an_interrupted_run_says_how_to_go_on_where_it_can(
    tmp_path: Path,
    simulated: AnnData,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    interrupted: str,
) -> None:
    """Ctrl-C just after the first checkpoint, or before it."""
    work = getattr(trainer, interrupted)

    def interrupt(*arguments: object) -> None:
        work(*arguments)
        raise KeyboardInterrupt

    simulated[:100].copy().write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.setattr(trainer, interrupted, interrupt)
    words = [str(tmp_path / "cells.h5ad"), "-o", str(tmp_path / "model"), "-k", "3", "--epochs", "2", "-q"]
    monkeypatch.setattr(sys, "argv", ["scrcl-train", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130
    out, err = capsys.readouterr()
    assert out == ""
    resumable = (tmp_path / "model.run" / "checkpoint.pt").exists()
    assert resumable == (interrupted == "write_checkpoint")
    said = f"with --resume goes on from the last checkpoint in {tmp_path / 'model.run'}."
    assert (said in err) == resumable
