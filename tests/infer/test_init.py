"""`scrcl_infer` itself: what it lists is there, and nothing heavy comes before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import scrcl_infer


def test_the_package_offers_what_it_lists() -> None:
    for name in scrcl_infer.__all__:
        assert getattr(scrcl_infer, name).__name__ == name
    assert scrcl_infer.__all__ == sorted(scrcl_infer.__all__)
    assert set(scrcl_infer.__all__) <= set(dir(scrcl_infer))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        scrcl_infer.nothing  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, scrcl_infer; print(sorted({'numpy', 'h5py', 'onnxruntime', 'anndata'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
