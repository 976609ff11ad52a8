"""What the names of genes tell: ids apart from symbols, their proper spelling, and the species."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.contract import UNKNOWN

_VERSION = re.compile(r"^(ENS[A-Z]*[GT]\d{6,}|WBGene\d+|FBgn\d+)(?:\.\d+)?(?:_PAR_Y)?$", re.IGNORECASE)
_GENOME = re.compile(r"^(?:GRCh3[78]|GRCm3[89]|hg19|hg38|mm9|mm10)_+(?=.)")
_ID_SPECIES = {
    "ENSG": "Homo sapiens", "ENSMUSG": "Mus musculus", "ENSRNOG": "Rattus norvegicus", "ENSDARG": "Danio rerio",
    "ENSMMUG": "Macaca mulatta", "ENSMFAG": "Macaca fascicularis", "ENSSSCG": "Sus scrofa", "ENSGALG": "Gallus gallus",
    "WBGene": "Caenorhabditis elegans", "FBgn": "Drosophila melanogaster",
}  # fmt: skip
_ID_SPELLINGS = {"WBGENE": "WBGene", "FBGN": "FBgn"}
ENSEMBL_ID = re.compile(r"^ENS[A-Z]*G\d{6,}|^WBGene\d{8}|^FBgn\d{7}", re.IGNORECASE)
"""Ids of genes in Ensembl, those of worm and fly among them."""
PLACEHOLDER = re.compile(r"^(gene|feature|g)?[_-]?[\d.]+$", re.IGNORECASE)
"""Names that are numbers, and tell nothing."""
FISH = "Danio rerio"
"""The species whose symbols are in small letters."""
_SYMBOL_SPECIES = (
    (re.compile(r"^[a-z]{3,4}-\d+(\.\d+)?$"), "Caenorhabditis elegans"),
    (re.compile(r"^[A-Z][A-Z0-9]+[A-Z0-9.\-]*(orf\d+)?$"), "Homo sapiens"),
    (re.compile(r"^[A-Z][a-z][A-Za-z0-9.\-]*$"), "Mus musculus"),
    (re.compile(r"^[a-z][a-z0-9:.]+$"), FISH),
)


def guess_species(names: Iterable[str]) -> str:
    """Return the binomial name that ids or the spelling of symbols point to, 'unknown' where they do not.

    Human symbols are in capitals, mouse and rat symbols capitalised (both are called mouse), fish in small letters.
    """
    sample = [name for name in list(names)[:5000] if name and not PLACEHOLDER.match(name)]
    votes: dict[str, int] = {}
    for name in map(clean_name, sample):
        prefix = re.match(r"^(ENS[A-Z]*G|WBGene|FBgn)(?=\d{6,})", name)
        if prefix:
            species = _ID_SPECIES.get(prefix.group(1), UNKNOWN)
        else:
            species = next((species for shape, species in _SYMBOL_SPECIES if shape.match(name)), UNKNOWN)
        votes[species] = votes.get(species, 0) + 1
    if not votes:
        return UNKNOWN
    winner = max(votes, key=lambda species: votes[species])
    return winner if votes[winner] > 0.6 * len(sample) else UNKNOWN


def clean_name(name: str) -> str:
    """Return a name without spaces and genome prefix; an Ensembl id without version and in its proper case.

    E.g. 'ENSG00000182378' of 'ensg00000182378.15_PAR_Y'. Symbols keep their case.
    """
    name = _GENOME.sub("", name.strip())
    versioned = _VERSION.match(name)
    if not versioned:
        return name
    upper = versioned.group(1).upper()
    letters = upper.rstrip("0123456789")
    return _ID_SPELLINGS.get(letters, letters) + upper[len(letters) :]


def guess_query_species(names: Mapping[str, NDArray[np.object_]]) -> str:
    """Return the species that the columns of names point to: the ids where a column is made of them, else the first.

    Ids tell species apart for certain, symbols by their case only.

    Parameters
    ----------
    names
        Label of a column to its cleaned names.
    """
    for values in names.values():
        ids = [name for name in values.tolist() if _VERSION.match(name)]
        if len(ids) > len(values) / 2:
            return guess_species(ids)
    return guess_species(next(iter(names.values())).tolist())
