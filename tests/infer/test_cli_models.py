"""`scrcl-models` as a user runs it: what is printed where, and the exit code."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scrcl_infer import catalog
from scrcl_infer.bundle import bundle_sha256, write_bundle
from scrcl_infer.cli_models import main
from scrcl_infer.contract import FILES, SpatialSpec
from tests.make_bundle import tiny_bundle

V1 = Path(__file__).parents[1] / "data" / "bundles" / "v1"
Run = tuple[int, str, str]


class Shell:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], models: Path) -> None:
        self.monkeypatch, self.capsys, self.models = monkeypatch, capsys, models

    def __call__(self, *arguments: str) -> Run:
        self.monkeypatch.setattr(sys, "argv", ["scrcl-models", *arguments])
        self.monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        code = main()
        out, err = self.capsys.readouterr()
        return code, out, err


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    """The command with one good model, 'good', in the only folder that is searched."""
    models = tmp_path / "models"
    shutil.copytree(V1, models / "good")
    monkeypatch.setenv("SCRCL_MODELS", str(models))
    monkeypatch.setattr(catalog, "__file__", str(tmp_path / "scrcl_infer" / "catalog.py"))
    return Shell(monkeypatch, capsys, models)


def break_encoder(folder: Path) -> None:
    with (folder / FILES.encoder).open("ab") as file:
        file.write(b"\0")


def test_list(shell: Shell) -> None:
    code, out, err = shell("list")
    assert (code, err) == (0, "")
    head, row = out.splitlines()
    assert head.split() == ["name", "species", "types", "genes", "trained_on", "path"]
    assert row.startswith("good  Homo sapiens  4")
    assert row.endswith(str(shell.models / "good"))


def test_list_as_json(shell: Shell) -> None:
    _, out, _ = shell("list", "--json")
    [row] = json.loads(out)
    assert row == {
        "name": "good",
        "species": "Homo sapiens",
        "types": 4,
        "genes": 40,
        "trained_on": "random (500 cells)",
        "path": str(shell.models / "good"),
    }


def test_list_names_a_model_it_cannot_read(shell: Shell) -> None:
    (shell.models / "new").mkdir()
    (shell.models / "new" / FILES.manifest).write_text('{"schema_version": 99}')
    code, out, err = shell("list")
    assert code == 0
    assert out.splitlines()[2].split()[:3] == ["new", "-", "-"]
    assert "schema version 99" in err


def test_list_of_nothing(shell: Shell) -> None:
    shutil.rmtree(shell.models / "good")
    code, out, err = shell("list")
    assert (code, out) == (0, "")
    assert f"searched {shell.models}" in err
    assert shell("list", "--json")[1] == "[]\n"


def test_show(shell: Shell) -> None:
    code, out, err = shell("show", "good")
    assert (code, err) == (0, "")
    assert bundle_sha256(shell.models / "good") in out
    assert "type A, type B, type C, type D" in out
    assert out.endswith((V1 / FILES.card).read_text())


def test_show_says_how_well_hidden_classes_were_told(shell: Shell) -> None:
    assert "AUROC" not in shell("show", "good")[1]
    bundle = tiny_bundle()
    calibration = replace(bundle.manifest.calibration, hidden_auroc=0.8765)
    write_bundle(replace(bundle, manifest=replace(bundle.manifest, calibration=calibration)), shell.models / "hid")
    assert "classes hidden in training were told with an AUROC of 0.88" in shell("show", "hid")[1]


def test_show_says_that_a_spatial_model_needs_places(shell: Shell) -> None:
    write_bundle(tiny_bundle(spatial=SpatialSpec(n_neighbors=6, n_steps=5)), shell.models / "tissue")
    code, out, _ = shell("show", "tissue")
    assert code == 0
    assert "spatial      needs obsm['spatial']; averages over the 6 nearest spots" in out
    assert "obsm['spatial']" not in shell("show", "good")[1]


def test_show_as_json(shell: Shell) -> None:
    code, out, _ = shell("show", "good", "--json")
    data = json.loads(out)
    assert code == 0
    assert data.pop("path") == str(shell.models / "good")
    assert data.pop("sha256") == bundle_sha256(V1)
    released = json.loads((V1 / FILES.manifest).read_text())
    # What later schemas added has its default.
    origin = data["provenance"]
    assert (data.pop("levels"), origin.pop("marker_table"), origin.pop("renamed_from")) == ([], "", "")
    assert data["calibration"].pop("hidden_auroc") is data["calibration"].pop("accuracy") is None
    assert data["genes"].pop("count_shares") == []
    assert data == released


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_model_that_is_not_there_is_5(command: str, shell: Shell) -> None:
    code, out, err = shell(command, "godo")
    assert (code, out) == (5, "")
    assert err.startswith("scrcl-models: error: no model is called 'godo'; did you mean 'good'?")
    assert "Traceback" not in err


def test_verify(shell: Shell) -> None:
    code, out, err = shell("verify", "good", "--threads", "1")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 9
    assert all(line.startswith("ok ") for line in lines)


def test_verify_as_json(shell: Shell) -> None:
    code, out, _ = shell("verify", str(V1), "--json")
    data = json.loads(out)
    assert code == 0
    assert data["passed"] is True
    assert data["path"] == str(V1)
    assert data["max_abs_diff"] < 1e-5


@pytest.mark.parametrize("as_json", [False, True])
def test_verify_of_a_broken_model_is_5(shell: Shell, *, as_json: bool) -> None:
    break_encoder(shell.models / "good")
    code, out, err = shell("verify", "good", *(["--json"] if as_json else []))
    assert code == 5
    assert "does not verify (files)" in err
    if as_json:
        assert json.loads(out)["passed"] is False
    else:
        assert "FAILED  files:" in out


def test_show_of_a_broken_model_is_5(shell: Shell) -> None:
    break_encoder(shell.models / "good")
    code, out, err = shell("show", "good")
    assert (code, out) == (5, "")
    assert FILES.encoder in err


@pytest.mark.parametrize("arguments", [["verify"], ["verify", "good", "--threads", "0"], ["delete", "good"]])
def test_wrong_usage_is_2(arguments: list[str], shell: Shell) -> None:
    code, out, err = shell(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: scrcl-models" in err


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_the_commands(shell: Shell, option: str) -> None:
    assert shell("show", option)[0] == 0
    code, out, _ = shell(option)
    assert code == 0
    assert all(command in out for command in ("list", "show", "verify", "name"))


def test_version(shell: Shell) -> None:
    code, out, err = shell("--version")
    assert (code, err) == (0, "")
    assert out.startswith("scrcl-models ")
    assert len(out.splitlines()) == 1


def test_name_writes_a_new_model_and_says_what_changed(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("type,name,ontology_id\ntype A,B cell,CL:0000236\n")
    arguments = ("name", "good", "--map", str(tmp_path / "names.csv"), "-o", str(tmp_path / "new"))
    code, out, err = shell(*arguments)
    assert (code, out, err) == (0, f"{tmp_path / 'new'}\n", "type A -> B cell\n")
    assert bundle_sha256(shell.models / "good") == bundle_sha256(V1)
    _, shown, _ = shell("show", str(tmp_path / "new"))
    assert "B cell, type B, type C, type D" in shown
    assert f"renamed from {bundle_sha256(V1)}" in shown
    assert shell("verify", str(tmp_path / "new"))[0] == 0
    code, out, err = shell(*arguments)
    assert (code, out) == (6, "")
    assert "--force" in err
    (tmp_path / "more.csv").write_text("type,name\nB cell,B lymphocyte\n")
    _, _, err = shell("name", str(tmp_path / "new"), "--map", str(tmp_path / "more.csv"), "-o", str(tmp_path / "more"))
    assert "ontology ids were not kept for B lymphocyte" in err
