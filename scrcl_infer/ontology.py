"""Ontology ids of cell types: their form, and which of them CELLxGENE's schema forbids. No ontology is at hand here.

Source: CELLxGENE schema 7.0.0, `cell_type_ontology_term_id`,
https://github.com/chanzuckerberg/single-cell-curation/blob/main/schema/7.0.0/schema.md
"""

from __future__ import annotations

import re

from scrcl_infer.contract import UNKNOWN

_FORMS = {
    "CL": re.compile("CL:[0-9]{7}"),
    "WBbt": re.compile("WBbt:[0-9]{7}"),
    "ZFA": re.compile("ZFA:[0-9]{7}"),
    "FBbt": re.compile("FBbt:[0-9]{8}"),
}
_SPECIES = {"WBbt": "Caenorhabditis elegans", "ZFA": "Danio rerio", "FBbt": "Drosophila melanogaster"}
_FORBIDDEN = {
    "CL:0000255": "eukaryotic cell",
    "CL:0000257": "Eumycetozoan cell",
    "CL:0000548": "animal cell",
    "WBbt:0004017": "cell",
    "WBbt:0006803": "nucleus",
    "ZFA:0009000": "cell",
    "FBbt:00007002": "cell",
}
"""Terms that the schema rules out: they say nothing, or are obsolete."""


def find_problem(term: str, species: str = UNKNOWN) -> str:
    """Return why an id cannot be used, '' if it can.

    Parameters
    ----------
    term
        E.g. 'CL:0000236'.
    species
        Binomial name of the cells' species; 'unknown' allows every form.
    """
    prefix = term.partition(":")[0]
    form = _FORMS.get(prefix)
    if form is None or not form.fullmatch(term):
        return f"{term!r} is no ontology id, expected 'CL:' and seven digits, e.g. CL:0000236"
    if term in _FORBIDDEN:
        return f"{term} ({_FORBIDDEN[term]}) is ruled out by the CELLxGENE schema, give a more exact term"
    home = _SPECIES.get(prefix)
    if home is not None and species not in (home, UNKNOWN):
        return f"{term} is of an ontology for {home} and the cells are of {species}, give a CL id"
    return ""
