"""A cell's whole way, and the only file that strings the steps: open, find counts, match genes, encode, decide, write.

::

    open_query ── iter_counts ─┬─ Encoder.run ── decide ─┬─ sink
                               └──── one block held ─────┘

`scrcl_infer.query` finds the matrix with the counts, matches the genes, and hands out blocks as the encoder takes them.
A spatial bundle's blocks are held together once, to be smoothed over each section's spots, before they are encoded.
With a vote, the answers (not the counts) wait until the last cell is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from scrcl_infer.assign import compute_type_posterior, decide
from scrcl_infer.blocks import RowBlock
from scrcl_infer.bundle import bundle_sha256, read_bundle
from scrcl_infer.contract import Bundle
from scrcl_infer.encoder import Encoder, available_threads
from scrcl_infer.explain import DrivingGenes
from scrcl_infer.missing import count_detected, ignore_stand_ins
from scrcl_infer.query import Query, iter_counts, open_query
from scrcl_infer.result import AssignedBlock, Assignment, AssignOptions, GeneReport, MatrixReport, Summary
from scrcl_infer.spatial import doubt_one_section
from scrcl_infer.strangeness import refer
from scrcl_infer.tally import Collector, Tally
from scrcl_infer.target import Target, check_target
from scrcl_infer.verify import check_encoder
from scrcl_infer.vote import NEIGHBORS, Decided, hold_vote
from scrcl_infer.write import open_sink

if TYPE_CHECKING:
    from anndata import AnnData

Progress = Callable[[int, int], None]
"""Called after each block with the cells done and the cells there are."""
DEFAULTS = AssignOptions()


class Model:
    """A model bundle, ready to assign cells.

    Parameters
    ----------
    bundle
        The bundle in memory.
    sha256
        Checksum of its manifest, which holds those of its other files.
    threads
        CPUs to use where the options of a call name no number; None takes those this process may use.
    """

    def __init__(self, bundle: Bundle, *, sha256: str, threads: int | None = None) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.sha256 = sha256
        self.threads = threads
        self.measures_strangeness = bundle.rejection is not None
        self._encoders: dict[int, Encoder] = {}

    def assign(
        self, data: Path | str | AnnData, *, options: AssignOptions = DEFAULTS, progress: Progress | None = None
    ) -> Assignment:
        """Assign all cells of a file or an AnnData, and return the answers in memory.

        Parameters
        ----------
        data
            Path of an `.h5ad` file, or an AnnData; neither is changed. `apply_assignment` adds answers to an AnnData.
        options
            How to read the query and how to answer.
        progress
            Called after each block.

        Raises
        ------
        InputError, MatrixError, GeneOverlapError
            The query cannot be used; the text says what to do.
        BundleIntegrityError
            The encoder is not the one that the manifest speaks of.
        """
        tally = Tally(self.manifest, reject=options.reject, strangeness=self.measures_strangeness)
        with self._open(data, options) as query:
            tally.lap("open")
            collector = Collector(self.manifest, query.source.n_cells, strangeness=self.measures_strangeness)
            for block in self._stream(query, options, tally, progress):
                tally.add(block)
                collector.add(block)
            tally.lap("assign")
            names = query.source.obs_names()
            summary = tally.summarise(query.matrix, query.genes.report, model_sha256=self.sha256)
        return collector.finish(names, tally.stamp(summary))

    def assign_file(
        self,
        path: Path | str,
        target: Target,
        *,
        options: AssignOptions = DEFAULTS,
        progress: Progress | None = None,
    ) -> Summary:
        """Assign all cells of a file and stream the answers to a target, in constant memory.

        Exceptions: a spatial bundle's spots are held together over the bundle's genes, and a vote holds about 0.3 kB a
        cell, and the embedding in a temporary file.

        Parameters
        ----------
        path
            The `.h5ad` file; never changed.
        target
            A copy of the file with the answers, a table, or standard output; complete or not there at all.
        options, progress
            See `assign`.

        Raises
        ------
        OutputError
            The target cannot or must not be written.
        InputError, MatrixError, GeneOverlapError, BundleError
            See `assign`.
        """
        check_target(target, Path(path))
        tally = Tally(self.manifest, reject=options.reject, strangeness=self.measures_strangeness)
        with self._open(path, options) as query:
            tally.lap("open")
            with open_sink(target, query.source, self.manifest, strangeness=self.measures_strangeness) as sink:
                tally.warn(*sink.warnings)
                tally.lap("copy")
                for block in self._stream(query, options, tally, progress):
                    tally.add(block)
                    tally.sketch(block, query.source.n_cells)
                    sink.write(block)
                tally.lap("assign")
                summary = tally.summarise(query.matrix, query.genes.report, model_sha256=self.sha256)
                sink.finish(self.describe(summary, options))
                tally.lap("finish")
        return tally.stamp(summary)

    def iter_assign(self, data: Path | str | AnnData, *, options: AssignOptions = DEFAULTS) -> Iterator[AssignedBlock]:
        """Yield the answers in order, block by block; as `assign`, which alone tells about the file as a whole."""
        with self._open(data, options) as query:
            yield from self._stream(query, options, Tally(self.manifest))

    def check(
        self, data: Path | str | AnnData, *, options: AssignOptions = DEFAULTS
    ) -> tuple[MatrixReport, GeneReport]:
        """Find the counts and match the genes, and assign nothing; parameters and errors as for `assign`."""
        with self._open(data, options) as query:
            return query.matrix, query.genes.report

    def count_threads(self, options: AssignOptions = DEFAULTS) -> int:
        """Return the CPUs that a call with these options uses."""
        return options.threads or self.threads or available_threads()

    def describe(self, summary: Summary, options: AssignOptions = DEFAULTS) -> dict[str, object]:
        """Return how answers came about, as the plain values that go into `uns['scrcl']`.

        Nothing in it depends on the clock, the machine, the block size or the threads.
        """
        smoothing = self.manifest.spatial
        spatial = {} if smoothing is None else {"section_key": options.section or "", **smoothing.to_dict()}
        return {
            **spatial,
            "model": self.manifest.name,
            "model_sha256": self.sha256,
            "model_created_by": self.manifest.created_by,
            "matrix": summary.matrix.where,
            "matrix_state": summary.matrix.state,
            "genes_matched_by": summary.genes.matched_by,
            "n_genes_found": summary.genes.n_found,
            "n_genes_model": summary.genes.n_model,
            "gene_overlap": summary.genes.weighted_overlap,
            **({} if summary.genes.count_share is None else {"count_share": summary.genes.count_share}),
            **({"vote": True, "vote_neighbors": NEIGHBORS} if options.vote else {}),
            "n_unknown": summary.n_unknown,
            **asdict(summary.rejection),
            "cell_types": [cell_type.name for cell_type in self.manifest.cell_types],
        }

    def _open(self, data: Path | str | AnnData, options: AssignOptions) -> AbstractContextManager[Query]:
        return open_query(data, self.bundle, options)

    def _stream(
        self, query: Query, options: AssignOptions, tally: Tally, progress: Progress | None = None
    ) -> Iterator[AssignedBlock]:
        """Yield the final answers; the vote and the explanation, where asked for, come in here."""
        if query.spots is not None and options.section is None:
            tally.warn(*doubt_one_section(query.source, query.spots))
        drivers = DrivingGenes(self.bundle, query.genes.found) if options.explain else None
        decided = self._decide(query, options, progress)
        if options.vote:
            # The counts went by before the vote: an explanation of what it decided reads them again.
            again = self._counts(query, options) if options.explain else None
            decided = hold_vote(decided, again, self.manifest, query.source.n_cells, note=tally.note)
        for counts, answers, _ in decided:
            if drivers is not None and counts is not None:
                drivers.add(counts, answers)
            yield answers
        if drivers is not None:
            tally.note("explanation", drivers.explain())

    def _decide(self, query: Query, options: AssignOptions, progress: Progress | None) -> Iterator[Decided]:
        """Yield each block's counts, each cell's answer on its own, and its calibrated type posteriors."""
        encoder, rejection = self._encoder(self.count_threads(options)), self.bundle.rejection
        reference = None if rejection is None else refer(rejection, query.genes.found)
        for block in self._counts(query, options):
            output = encoder.run(block.counts, block.library_size)
            output = ignore_stand_ins(output, block.counts, query.stand_ins)
            n_detected = count_detected(block.counts, query.stand_ins)
            answers = decide(output, n_detected, self.manifest, reference, reject=options.reject, start=block.start)
            yield block, answers, compute_type_posterior(output.log_posterior, output.log_type_posterior, self.manifest)
            if progress is not None:
                progress(block.start + len(n_detected), query.source.n_cells)

    def _counts(self, query: Query, options: AssignOptions) -> Iterator[RowBlock]:
        threads = self.count_threads(options)
        return iter_counts(query, self.manifest, block_size=options.block_size, threads=threads)

    def _encoder(self, threads: int) -> Encoder:
        if threads not in self._encoders:
            encoder = Encoder(self.bundle.encoder, threads=threads)
            check_encoder(encoder, self.manifest)
            self._encoders[threads] = encoder
        return self._encoders[threads]


def load(model: str | Path | None = None, *, threads: int | None = None) -> Model:
    """Load a model bundle.

    Parameters
    ----------
    model
        Folder of a bundle, or the name of one that `scrcl-models list` shows; None takes the default bundle.
    threads
        CPUs to use; None takes those this process may use.

    Raises
    ------
    BundleNotFoundError
        There is no such bundle; the text lists those there are.
    BundleSchemaError, BundleIntegrityError
        It cannot be read, or is not what it was when it was written.
    """
    from scrcl_infer.catalog import find_bundle

    folder, _ = find_bundle(model)
    return Model(read_bundle(folder), sha256=bundle_sha256(folder), threads=threads)
