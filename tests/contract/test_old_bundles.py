"""One tiny bundle of every released schema stays in `tests/data/bundles` for ever, and must stay readable.

The newest is made by `python -m tests.make_bundle tests/data/bundles/vN`, once, when schema N is released; after that
it is never made again, or it would follow the code that it is there to hold.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scrcl_infer.bundle import bundle_sha256, read_bundle, write_bundle
from scrcl_infer.contract import FILES, OLDEST_SCHEMA_VERSION, SCHEMA_VERSION
from scrcl_infer.encoder import Encoder
from scrcl_infer.strangeness import Spaces, compute_signs, compute_strangeness, refer
from scrcl_infer.verify import check_encoder, verify_bundle

ARCHIVE = Path(__file__).parents[1] / "data" / "bundles"
VERSIONS = range(OLDEST_SCHEMA_VERSION, SCHEMA_VERSION + 1)
# What the files were when their schema was released.
SHA256 = {
    1: "46eb88a379dc847d50f5c7e96ba0087b8fbf94d88375c883620d1798dcd126e5",
    2: "c59e8dfe44e0015b62528d78e162ba6cf585230f311bca72286ff80ebeaec372",
    3: "b09281c662235d1d1be7a3e95e963248dff919056531e09175a307a398817f84",
    4: "517d99de15aab26517f932e5e346d8114e99b5760cba8287498961195cc28966",
    5: "e168ee52a65c0e3868a6b838f7395ebe936e03fc900727b2aa2bd707d435fdbd",
    6: "143ce2def57e3d8d7b9093b1aec4306115da10610645900489b22a12768e4b66",
    7: "581855f3b7c6df0ee3d55b20971ecb40c7137d43bd353eb9c41492bc5aeed33c",
}
CONTRACT_IDS = {
    1: "d883e59c003fb225",
    2: "d883e59c003fb225",
    3: "d883e59c003fb225",
    4: "d883e59c003fb225",
    5: "fe64e9e980e861a1",
    6: "fe64e9e980e861a1",
    7: "fe64e9e980e861a1",
}


def test_every_readable_schema_has_a_bundle() -> None:
    assert sorted(path.name for path in ARCHIVE.iterdir()) == [f"v{version}" for version in VERSIONS]
    assert sorted(SHA256) == sorted(CONTRACT_IDS) == list(VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
def test_is_what_was_released(version: int) -> None:
    assert bundle_sha256(ARCHIVE / f"v{version}") == SHA256[version]


@pytest.mark.parametrize("version", VERSIONS)
def test_reads_and_replays(version: int) -> None:
    folder = ARCHIVE / f"v{version}"
    bundle = read_bundle(folder)
    assert bundle.manifest.schema_version == version
    # Also stamped into the encoder: were it computed in another way, no old bundle could be used.
    assert bundle.manifest.contract_id == CONTRACT_IDS[version]
    encoder = Encoder(bundle.encoder, threads=1)
    check_encoder(encoder, bundle.manifest)
    output = encoder.run(bundle.golden.counts, bundle.golden.library_size)
    np.testing.assert_allclose(output.embedding, bundle.golden.embedding, atol=1e-5)
    assert verify_bundle(folder).passed


def test_strangeness_of_schema_2_is_not_used_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert read_bundle(ARCHIVE / "v2").rejection is None
    assert "is of schema 2" in caplog.text
    assert "Train it anew" in caplog.text
    caplog.clear()
    assert read_bundle(ARCHIVE / "v3").rejection is not None
    assert read_bundle(ARCHIVE / "v1").rejection is None
    assert not caplog.text


def test_doubt_and_rarity_have_no_part_in_the_strangeness_of_schema_3() -> None:
    bundle = read_bundle(ARCHIVE / "v3")
    known, golden = bundle.rejection, bundle.golden
    assert known is not None
    output = Encoder(bundle.encoder, threads=1).run(golden.counts, golden.library_size)
    assert output.components is not None
    n_detected = np.count_nonzero(golden.counts, axis=1)
    rarity = np.zeros((len(n_detected), len(known.embedding_means)), np.float32)
    spaces = Spaces(output.embedding, output.components, rarity, golden.log_type_posterior)
    found = compute_strangeness(spaces, n_detected, refer(known))
    rare = spaces._replace(rarity=rarity + 1e4)
    np.testing.assert_array_equal(compute_strangeness(rare, n_detected, refer(known, np.arange(40) < 9)), found)
    doubtful = spaces._replace(log_posterior=np.full_like(golden.log_type_posterior, -np.log(4)))
    np.testing.assert_array_equal(compute_strangeness(doubtful, n_detected, refer(known)), found)
    signs = compute_signs(spaces, n_detected, known, refer(known).rarity)
    standard = (signs - known.median[0, 0]) / known.spread[0, 0]
    np.testing.assert_allclose(found, standard[:, :3].sum(axis=1) - known.limit[0, 0])


def test_the_newest_schema_is_written_as_it_was_released(tmp_path: Path) -> None:
    """A changed key, order or encoding changes these bytes: then the schema version has to rise."""
    released = ARCHIVE / f"v{SCHEMA_VERSION}"
    written = write_bundle(read_bundle(released), tmp_path / "model")
    for name in FILES:
        assert (written / name).read_bytes() == (released / name).read_bytes(), name
