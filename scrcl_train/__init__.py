"""Find cell populations without labels and export a model that assigns new cells; see `scrcl_train.pipeline.train`."""

from __future__ import annotations

__all__: list[str] = []
