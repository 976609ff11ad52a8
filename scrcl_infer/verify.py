"""Verify a bundle on this machine: checksums, shapes, the encoder's names, and a replay of the golden rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.bundle import bundle_sha256, read_bundle, read_manifest
from scrcl_infer.contract import TENSORS, Bundle, Manifest
from scrcl_infer.encoder import Encoder, EncoderOutput
from scrcl_infer.errors import BundleError, BundleIntegrityError
from scrcl_infer.parts import Golden
from scrcl_infer.record import Record

TOLERANCES = {TENSORS.embedding: 1e-5, TENSORS.log_posterior: 1e-3, TENSORS.map: 1e-3, TENSORS.log_type_posterior: 1e-3}
"""Largest absolute difference of a replayed entry. The embedding's is the exporter's own bound between torch and
onnxruntime; the others are unbounded numbers and enter answers through a softmax or a plot."""


@dataclass(frozen=True)
class Check(Record):
    """One thing that was looked at."""

    name: str
    passed: bool
    detail: str
    """One sentence: what was found, and what was expected where that differs."""


@dataclass(frozen=True)
class VerifyReport(Record):
    """What `verify_bundle` found."""

    name: str
    """The manifest's name, '' where it cannot be read."""
    sha256: str
    """Of the manifest's bytes."""
    checks: tuple[Check, ...]
    max_abs_diff: float | None = None
    """Largest difference of a replayed embedding entry; None where nothing was replayed."""
    label_agreement: float | None = None
    """Share of replayed rows with the same population and the same type."""

    @property
    def passed(self) -> bool:
        """Whether the bundle can be used."""
        return all(check.passed for check in self.checks)


def verify_bundle(folder: Path, *, threads: int | None = None) -> VerifyReport:
    """Check a bundle and replay its golden rows.

    Parameters
    ----------
    folder
        The bundle's folder.
    threads
        As for `Encoder`.

    Returns
    -------
    VerifyReport
        Also when a check fails; what follows the failure is then left out.

    Raises
    ------
    BundleNotFoundError
        There is no bundle at `folder`.
    """
    sha256, name = bundle_sha256(folder), ""
    checks: list[Check] = []
    replay: tuple[float, float] | None = None
    step = "manifest"
    try:
        manifest = read_manifest(folder)
        name = manifest.name
        checks.append(_passed(step, f"schema version {manifest.schema_version}, written by {manifest.created_by}"))
        step = "files"
        bundle = read_bundle(folder)
        sizes = sum(entry.n_bytes for entry in manifest.files.values())
        checks.append(_passed(step, f"{len(manifest.files)} files, {sizes} bytes, all checksums and shapes agree"))
        step = "encoder"
        encoder = Encoder(bundle.encoder, threads=threads)
        check_encoder(encoder, manifest)
        checks.append(_passed(step, f"names and shapes as in the manifest, contract {manifest.contract_id}"))
        replayed, replay = _replay(encoder, bundle)
        checks.extend(replayed)
    except BundleError as error:
        detail = " ".join([str(error), *getattr(error, "__notes__", [])])
        checks.append(Check(name=step, passed=False, detail=detail))
    difference, agreement = replay if replay else (None, None)
    return VerifyReport(name, sha256, tuple(checks), max_abs_diff=difference, label_agreement=agreement)


def check_encoder(encoder: Encoder, manifest: Manifest) -> None:
    """Check that an encoder is the one that a manifest speaks of: contract id and widths.

    Raises
    ------
    BundleIntegrityError
        It is another one; the text gives found and expected.
    """
    spec = manifest.encoder
    pairs = [
        ("contract id", encoder.contract_id, manifest.contract_id),
        ("genes", encoder.n_genes, len(manifest.genes.names)),
        ("dimensions", encoder.width(TENSORS.embedding), spec.dim),
        ("populations", encoder.width(TENSORS.log_posterior), spec.n_populations),
        ("map columns", encoder.width(TENSORS.map), 2),
        ("types", encoder.width(TENSORS.log_type_posterior), spec.n_types),
    ]
    wrong = [f"{what}: {found}, expected {expected}" for what, found, expected in pairs if found != expected]
    if wrong:
        msg = f"the encoder is not the one of this manifest ({'; '.join(wrong)}). Get the bundle again."
        raise BundleIntegrityError(msg)


def _passed(step: str, detail: str) -> Check:
    return Check(name=step, passed=True, detail=detail)


def _replay(encoder: Encoder, bundle: Bundle) -> tuple[list[Check], tuple[float, float]]:
    """Run the golden rows; return the checks, the embedding's largest difference and the share of equal labels."""
    golden = bundle.golden
    output = encoder.run(golden.counts, golden.library_size)
    checks, differences = [], {}
    for name, bound in TOLERANCES.items():
        found, expected = getattr(output, name), getattr(golden, name)
        if found is None:
            continue
        differences[name] = _max_abs_diff(found, expected)
        detail = f"largest difference {differences[name]:.1e}, allowed {bound:.0e}, over {len(expected)} rows"
        checks.append(Check(f"replay of {name}", differences[name] <= bound, detail))
    agreement = _label_agreement(output, golden)
    checks.append(Check("replay of labels", agreement == 1, f"{agreement:.2%} of rows agree, expected all"))
    checks.append(_check_neighbours(encoder, golden, output))
    return checks, (differences[TENSORS.embedding], agreement)


def _check_neighbours(encoder: Encoder, golden: Golden, output: EncoderOutput) -> Check:
    """Run the rows in other places and beside other rows: the bytes must stay."""
    everything = np.arange(len(golden.counts))
    others = set()
    for rows in (everything[::-1], everything[1::2]):
        again = encoder.run(golden.counts[rows], golden.library_size[rows])
        others |= {
            name
            for name in TOLERANCES
            if (value := getattr(again, name)) is not None and value.tobytes() != getattr(output, name)[rows].tobytes()
        }
    found = f"{', '.join(sorted(others))} changed" if others else "nothing changed"
    return Check("replay beside other cells", not others, f"{found}, to the last bit")


def _max_abs_diff(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    # Equal infinities (a posterior of 0) are no difference; a NaN is an infinite one.
    different = found != expected
    gaps = np.abs(found[different].astype(np.float64) - expected[different].astype(np.float64))
    return float(np.nan_to_num(gaps, nan=np.inf).max(initial=0.0))


def _label_agreement(output: EncoderOutput, golden: Golden) -> float:
    same = output.log_posterior.argmax(axis=1) == golden.log_posterior.argmax(axis=1)
    if output.log_type_posterior is not None:
        same &= output.log_type_posterior.argmax(axis=1) == golden.log_type_posterior.argmax(axis=1)
    return float(same.mean()) if same.size else 1.0
