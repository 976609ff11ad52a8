"""Find model bundles by name, on this machine only: nothing is ever downloaded."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from scrcl_infer.contract import FILES
from scrcl_infer.errors import BundleNotFoundError

MODELS_VARIABLE = "SCRCL_MODELS"
"""Environment variable with folders of bundles, separated as in PATH; searched before the bundles shipped along."""

DEFAULT_MODEL = "human-pbmc"
"""The bundle taken when none is named."""


def find_bundle(model: str | Path | None = None) -> tuple[Path, str]:
    """Find the folder of a bundle.

    Parameters
    ----------
    model
        A bundle's folder; or the name of a bundle, which is its folder's name in one of `search_folders()`; None is
        the default bundle. A folder of that name in the working directory goes before the search.

    Returns
    -------
    tuple of Path and str
        The folder, and a sentence to say aloud where the choice was not the user's own ('' otherwise).

    Raises
    ------
    BundleNotFoundError
        There is none; the text lists what there is.
    """
    if model is None:
        folder = _search(DEFAULT_MODEL)
        return folder, (
            f"No model was named: using '{DEFAULT_MODEL}' ({folder}). Its types are the only answers it can give; "
            "name another with --model, see `scrcl-models list`."
        )
    path = Path(model).expanduser()
    if _is_bundle(path):
        return path, ""
    is_name = isinstance(model, str) and Path(model).name == model and model not in (".", "..")
    if is_name and not path.exists():
        return _search(str(model)), ""
    raise BundleNotFoundError(_not_a_bundle(path))


def list_bundles() -> list[Path]:
    """Return the folders of all bundles that can be found by name, sorted by name."""
    found: dict[str, Path] = {}
    for folder in search_folders():
        for path in folder.iterdir():
            if _is_bundle(path):
                found.setdefault(path.name, path)
    return [found[name] for name in sorted(found)]


def search_folders() -> list[Path]:
    """Return the folders searched for bundles, first to last; only those that exist.

    They are those of the variable SCRCL_MODELS, the installed package's own, and `models/` of a source tree.
    """
    named = [Path(part).expanduser() for part in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if part]
    package = Path(__file__).resolve().parent
    shipped = [package / "_models"]
    # Installed, the folder above is site-packages, where a 'models' would be somebody else's.
    if (package.parent / "pyproject.toml").is_file():
        shipped.append(package.parent / "models")
    return [folder for folder in [*named, *shipped] if folder.is_dir()]


def _search(name: str) -> Path:
    for folder in search_folders():
        if _is_bundle(folder / name):
            return folder / name
    names = [path.name for path in list_bundles()]
    close = difflib.get_close_matches(name, names, n=1)
    msg = (
        f"no model is called '{name}'{f'; did you mean {close[0]!r}?' if close else '.'} "
        f"There are: {', '.join(names) or 'none'}. Searched: {_searched()}. "
        f"Give the path of a bundle's folder, or set {MODELS_VARIABLE} to the folder that holds your bundles."
    )
    raise BundleNotFoundError(msg)


def _not_a_bundle(path: Path) -> str:
    if path.is_file():
        found = "it is a file, a model is the whole folder"
        if _is_bundle(path.parent):
            found += f": give {path.parent}"
    elif path.is_dir():
        found = f"that folder holds no {FILES.manifest}"
    else:
        found = "there is no such folder"
    names = ", ".join(bundle.name for bundle in list_bundles()) or "none"
    return f"{path}: not a model bundle, {found}. Models known by name: {names}. Searched: {_searched()}."


def _searched() -> str:
    return ", ".join(str(folder) for folder in search_folders()) or f"nothing, {MODELS_VARIABLE} is not set"


def _is_bundle(path: Path) -> bool:
    return (path / FILES.manifest).is_file()
