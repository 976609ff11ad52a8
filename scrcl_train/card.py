"""The model card: what a bundle was trained on, how well it does, and where it must not be used."""

from __future__ import annotations

from scrcl_infer.card_sections import write_figures, write_populations, write_types
from scrcl_infer.contract import UNKNOWN, Manifest

TESTED = "## Tested on other data"


def write_card(manifest: Manifest, *, notes: str = "") -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    manifest
        Complete but for the files' checksums.
    notes
        Markdown put before the limits, e.g. figures from an independent data set.
    """
    parts = [_head(manifest), write_populations(manifest), write_types(manifest), write_figures(manifest)]
    if notes:
        parts.append(f"{TESTED}\n\n{notes.strip().removeprefix(TESTED).strip()}")
    parts += [_limits(manifest), _origin(manifest)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(manifest: Manifest) -> str:
    origin, genes = manifest.provenance, manifest.genes
    named = "no labels: types are populations"
    if origin.label_keys:
        named = f"labels of `{origin.label_keys[0]}`"
        named += f", with the coarser levels `{', '.join(origin.label_keys[1:])}`" if origin.label_keys[1:] else ""
    elif origin.marker_table:
        named = f"the marker genes of `{origin.marker_table}`; populations without a clear name keep their own"
    species = genes.species if genes.species != UNKNOWN else "not recognised from the gene names"
    return "\n".join(
        [
            f"# {manifest.name}",
            "",
            "Maps each cell's raw counts to an embedding, a population, a type with a probability, and a place on the",
            "map of the training cells. " + _how(manifest),
            "",
            f"- Trained on: {origin.data_name}, {origin.n_cells:,} cells, {origin.n_genes:,} genes in the file",
            f"- Species: {species}",
            f"- Input: {len(genes.names):,} genes; raw counts and the cell's total over all its genes",
            f"- Populations: {len(manifest.populations)}, found without labels",
            f"- Types: {len(manifest.cell_types)}, from {named}",
            f"- Licence of the training data: {origin.data_licence}",
            "",
            "```",
            f"scrcl-assign new.h5ad --model {manifest.name} -o annotated.h5ad",
            "```",
        ]
    )


def _how(manifest: Manifest) -> str:
    """Say what an answer rests on: a cell alone, or a spot and its neighbours."""
    spatial = manifest.spatial
    if spatial is None:
        return "Each cell is answered on its own."
    return (
        "Cells are spots of tissue sections: their expression is first averaged over\nneighbours "
        f"({spatial.n_steps} steps over the {spatial.n_neighbors} nearest), so the input needs the places of the spots "
        "in\n`obsm['spatial']`, and `--section OBS_KEY` where it holds several sections."
    )


def _limits(manifest: Manifest) -> str:
    genes = manifest.genes
    species = f"other species than {genes.species}" if genes.species != UNKNOWN else "another species"
    refused, warned = f"{genes.min_overlap:.0%}", f"{genes.warn_overlap:.0%}"
    return "\n".join(
        [
            "## Where it must not be used",
            "",
            "- For diagnosis or any other decision about a patient.",
            f"- For {species}, or for tissues that the training data do not hold: a type the model has not seen is",
            f"  either '{UNKNOWN}' or the nearest type it knows, and it cannot be relied on to be the former.",
            f"- Where the query lacks genes: it is refused when less than {refused} of the model's evidence",
            f"  rests on genes it has; below {warned} there is a warning, and answers should be checked",
            "  against marker genes.",
            "- For conclusions about rare types that have a handful of training cells in the table above.",
        ]
    )


def _origin(manifest: Manifest) -> str:
    origin = manifest.provenance
    versions = ", ".join(f"{name} {number}" for name, number in sorted(origin.versions.items()))
    return "\n".join(
        [
            "## Provenance",
            "",
            f"- Made by {manifest.created_by}, preset `{origin.preset}`, seed {origin.seed}"
            + (f", batches by `{origin.batch_key}`" if origin.batch_key else ""),
            f"- Training data sha256: `{origin.data_sha256}`",
            f"- Versions: {versions}",
            f"- Contract: `{manifest.contract_id}`, schema {manifest.schema_version}",
            "- Method: Peng et al., 'Refinement Contrastive Learning of Cell-Gene Associations for Unsupervised Cell",
            "  Type Identification', arXiv 2512.10640; the per-cell encoder is distilled from it.",
        ]
    )
