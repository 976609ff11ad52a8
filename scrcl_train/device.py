"""Where training runs, and how a run is made repeatable."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import Tensor

from scrcl_infer.errors import TrainingError

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str = "auto") -> torch.device:
    """Turn a name into a device that is there.

    Parameters
    ----------
    name
        'cpu', 'cuda', 'mps', or 'auto' for the best of cuda, mps, cpu that this machine has.

    Raises
    ------
    TrainingError
        The name is none of these, or the machine has no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if name not in available:
        msg = f"Unknown device {name!r}. Choose one of {', '.join(DEVICES)}."
        raise TrainingError(msg)
    if not available[name]:
        there = ", ".join(kind for kind, is_there in available.items() if is_there)
        msg = f"Device {name!r} was asked for, but torch {torch.__version__} finds only: {there}. Use --device auto."
        raise TrainingError(msg)
    return torch.device(name)


def seed_everything(seed: int) -> None:
    """Seed torch's generators on all devices."""
    torch.manual_seed(seed)


@contextlib.contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Run the body with seeded generators and repeatable kernels; both are put back as they were afterwards.

    Kernels without a repeatable form run all the same, with torch's own warning.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is repeatable only with a fixed workspace
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    state = rng_state(device)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        seed_everything(seed)
        yield
    finally:
        torch.use_deterministic_algorithms(mode=deterministic, warn_only=warn_only)
        set_rng_state(state, device)


@contextlib.contextmanager
def keep_threads() -> Iterator[None]:
    """Give torch the number of threads back that it had before the body.

    Numba, behind UMAP and approximate neighbours, sets that of the whole process to all CPUs: sums would be taken in
    another order afterwards, and a second run in the same process would differ in its last digits from the first.
    """
    n_threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """Return the generators' states: 'cpu', and the device's own where it has one."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Put the generators back to what `rng_state` returned; a state of another kind of device is left out."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"].cpu())
