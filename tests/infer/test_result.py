"""`scrcl_infer.result`: options are looked at before anything is done."""

from __future__ import annotations

from typing import Any

import pytest

from scrcl_infer.errors import InputError
from scrcl_infer.result import AssignOptions


@pytest.mark.parametrize(
    "wrong", [{"block_size": 0}, {"threads": 0}, {"min_overlap": 5.0}, {"min_overlap": -0.1}, {"input_state": "log"}]
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(InputError, match=f"{name} is .* expected"):
        AssignOptions(**wrong)
