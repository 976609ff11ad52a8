"""Choosing a device and repeating a run on it."""

from __future__ import annotations

import pytest
import torch

from scrcl_infer.errors import TrainingError
from scrcl_train.device import choose_device, keep_threads, reproducible, rng_state, seed_everything, set_rng_state

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_best_there_is(monkeypatch: pytest.MonkeyPatch, *, cuda: bool, mps: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == expected
    assert choose_device("cpu").type == "cpu"


def test_absent_and_unknown_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=r"'cuda' was asked for, but .* finds only"):
        choose_device("cuda")
    with pytest.raises(TrainingError, match=r"Unknown device 'tpu'.*auto, cpu, cuda, mps"):
        choose_device("tpu")


def test_body_repeats_and_the_callers_state_goes_on() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    draws = []
    for _ in range(2):
        with reproducible(7, CPU):
            draws.append(torch.rand(4))
            assert torch.are_deterministic_algorithms_enabled()
    assert torch.equal(*draws)
    assert torch.equal(torch.rand(2), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_state_is_put_back_after_an_error() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), reproducible(7, CPU):
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_saved_state_continues_the_stream() -> None:
    seed_everything(3)
    torch.rand(5)
    state = rng_state(CPU)
    expected = torch.rand(5)
    torch.rand(11)
    set_rng_state(state, CPU)
    assert torch.equal(torch.rand(5), expected)


def test_the_number_of_threads_is_put_back() -> None:
    before = torch.get_num_threads()
    try:
        with keep_threads():
            torch.set_num_threads(before + 1)
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(before)
