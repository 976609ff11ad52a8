"""Give the types of a bundle other names: a new bundle with new checksums, the same encoder to the byte.

Types that follow from populations can be merged under one name, for their probabilities add up. Types of a type head
were learned apart and stay apart. Where types are put together otherwise than before, temperature and threshold are
fitted anew to the held-out cells' answers that the bundle keeps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from scrcl_infer.assign import type_of_population
from scrcl_infer.bundle import bundle_sha256, check_folder, read_bundle, write_bundle
from scrcl_infer.card_sections import replace_sections
from scrcl_infer.contract import SCHEMA_VERSION, UNKNOWN, Bundle, CellType, Manifest, Population
from scrcl_infer.errors import InputError, OutputError
from scrcl_infer.ontology import find_problem
from scrcl_infer.tables import read_table
from scrcl_infer.tempering import calibrate_types

KINDS: tuple[Literal["population"], Literal["type"]] = ("population", "type")
NAMES_HEADING = "## Names"


@dataclass(frozen=True)
class NameTable:
    """What is to be called what."""

    kind: Literal["population", "type"]
    """What the old names name."""
    names: dict[str, str]
    """Old name to new name."""
    ontology_ids: dict[str, str]
    """New name to ontology id, where one is given."""


@dataclass(frozen=True)
class Renamed:
    """What was done."""

    folder: Path
    """Of the new bundle."""
    changes: tuple[tuple[str, str], ...]
    """Old and new name of each population or type that the table names."""
    dropped_ids: tuple[str, ...]
    """New names that lost the ontology id of the old name, for the table gives none."""
    temperatures: tuple[float, float]
    """Of the old bundle and of the new one; another where populations were put together."""


def rename_bundle_folder(folder: Path, table: Path, new_folder: Path, *, force: bool = False) -> Renamed:
    """Write a copy of a bundle with other names.

    Parameters
    ----------
    folder
        The bundle; never changed.
    table
        See `read_name_table`.
    new_folder
        The bundle to write; its name becomes the model's.
    force
        Replace another bundle that stands there.

    Raises
    ------
    InputError
        The table cannot be used on this bundle; the text says why.
    OutputError
        Something stands at `new_folder`, or it is the bundle itself.
    BundleError
        The bundle cannot be read.
    """
    if new_folder.expanduser().resolve() == folder.expanduser().resolve():
        msg = (
            f"{new_folder} is the bundle that is to be renamed, which is never changed. Choose another folder with -o."
        )
        raise OutputError(msg)
    check_folder(new_folder.expanduser().resolve(), force=force)
    names = read_name_table(table)
    old = read_bundle(folder)
    new, dropped = rename(old, names, sha256=bundle_sha256(folder), name=new_folder.name)
    written = write_bundle(new, new_folder, force=force)
    temperatures = old.manifest.calibration.temperature, new.manifest.calibration.temperature
    return Renamed(written, tuple(names.names.items()), dropped, temperatures)


def read_name_table(path: Path) -> NameTable:
    """Read a table of old and new names.

    Parameters
    ----------
    path
        CSV or TSV with the columns `population` or `type` (the old names), `name`, and, if wanted, `ontology_id`.

    Raises
    ------
    InputError
        The header has neither or both of the first two columns, an old name stands twice, a new name is 'unknown', an
        ontology id is malformed, or one new name has several ids.
    """
    rows = read_table(path, ("name",), (*KINDS, "ontology_id"), example="population,name,ontology_id")
    kinds = [kind for kind in KINDS if kind in rows[0]]
    if len(kinds) != 1:
        msg = (
            f"{path}: has {'both' if kinds else 'neither'} of the columns 'population' and 'type', expected one: the "
            "old names. A header such as 'population,name,ontology_id' will do."
        )
        raise InputError(msg)
    kind = kinds[0]
    names: dict[str, str] = {}
    ids: dict[str, str] = {}
    for row in rows:
        old, new, term = row[kind], row["name"], row.get("ontology_id", "")
        if not old or old in names or new == UNKNOWN:
            reason = f"{kind} {old!r} stands twice" if old in names else f"a row says {old!r} to {new!r}"
            msg = f"{path}: {reason}. Each {kind} has one row, and its name is not '{UNKNOWN}'."
            raise InputError(msg)
        problem = find_problem(term) if term else ""
        if term and ids.get(new, term) != term:
            problem = f"{new!r} has the ids {ids[new]} and {term}"
        if problem:
            msg = f"{path}: {problem}."
            raise InputError(msg)
        names[old] = new
        if term:
            ids[new] = term
    return NameTable(kind, names, ids)


def rename(bundle: Bundle, table: NameTable, *, sha256: str, name: str) -> tuple[Bundle, tuple[str, ...]]:
    """Return a bundle with other names, and the names that lost their old ontology id.

    Parameters
    ----------
    bundle
        The bundle; unchanged.
    table
        What is to be called what. A new name has the ontology id that the table gives it, or that a type of that name
        had; that of the old name is not carried over.
    sha256
        Checksum of the old bundle, for the provenance.
    name
        Name of the new model.

    Raises
    ------
    InputError
        The table names what is not there, populations of a bundle with a type head, or one name for two of its types;
        or an ontology id is for another species.
    """
    manifest = bundle.manifest
    _check_fits(manifest, table)
    if table.kind == "type":
        new_names = {t.name: table.names.get(t.name, t.name) for t in manifest.cell_types}
        populations = tuple(replace(p, cell_type=new_names[p.cell_type]) for p in manifest.populations)
    else:
        populations = tuple(replace(p, cell_type=table.names.get(p.name, p.cell_type)) for p in manifest.populations)
        new_names = {t.name: t.name for t in manifest.cell_types}
    # An id says what a name means, so it stays with the name and does not go with the cells.
    ids = {t.name: t.ontology_id for t in manifest.cell_types if t.ontology_id} | table.ontology_ids
    if manifest.encoder.n_types:
        types = tuple(
            replace(t, name=new_names[t.name], ontology_id=ids.get(new_names[t.name])) for t in manifest.cell_types
        )
    else:
        types = list_types(populations, ids)
    new = replace(
        manifest,
        schema_version=SCHEMA_VERSION,
        name=name,
        populations=populations,
        cell_types=types,
        provenance=replace(manifest.provenance, renamed_from=sha256),
    )
    together = type_of_population(manifest), type_of_population(new)
    new = replace(new, calibration=calibrate_types(manifest.calibration, bundle.held_out, *together))
    dropped = {after for before, after in _old_types(manifest, table) if before in ids and after not in ids}
    return replace(bundle, manifest=new, card=_write_card(bundle.card, manifest, new, table)), tuple(sorted(dropped))


def list_types(populations: Iterable[Population], ontology_ids: Mapping[str, str]) -> tuple[CellType, ...]:
    """Return the types that follow from populations, by decreasing size, equals in the populations' order."""
    sizes: dict[str, int] = {}
    for population in populations:
        sizes[population.cell_type] = sizes.get(population.cell_type, 0) + population.n_cells
    return tuple(CellType(name, sizes[name], ontology_ids.get(name)) for name in sorted(sizes, key=lambda n: -sizes[n]))


def _old_types(manifest: Manifest, table: NameTable) -> list[tuple[str, str]]:
    """Return old type and new name of each row of the table."""
    of_population = {p.name: p.cell_type for p in manifest.populations}
    return [(of_population[old] if table.kind == "population" else old, new) for old, new in table.names.items()]


def _check_fits(manifest: Manifest, table: NameTable) -> None:
    if table.kind == "population" and manifest.encoder.n_types:
        msg = (
            f"The types of bundle '{manifest.name}' were learned from labels and do not follow from its populations: "
            "naming populations would change nothing. Rename its types: a table with the columns 'type' and 'name'."
        )
        raise InputError(msg)
    known = (
        [p.name for p in manifest.populations] if table.kind == "population" else [t.name for t in manifest.cell_types]
    )
    if strangers := [old for old in table.names if old not in known]:
        msg = f"Bundle '{manifest.name}' has no {table.kind} {_quote(strangers)}. It has: {', '.join(known)}."
        raise InputError(msg)
    species = manifest.genes.species
    if problems := [p for term in table.ontology_ids.values() if (p := find_problem(term, species))]:
        msg = "; ".join(problems) + "."
        raise InputError(msg)
    if manifest.encoder.n_types:
        new = [table.names.get(t.name, t.name) for t in manifest.cell_types]
        if double := sorted({name for name in new if new.count(name) > 1}):
            msg = (
                f"Two types of bundle '{manifest.name}' would be called {_quote(double)}. Its encoder has an output "
                "for each type, so they cannot be merged; name them apart, or train again with coarser --labels."
            )
            raise InputError(msg)


def _quote(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in list(names)[:5])


def _write_card(card: str, old: Manifest, new: Manifest, table: NameTable) -> str:
    """Return the card with the new tables, and a section that says what was renamed."""
    card = card.replace(f"# {old.name}\n", f"# {new.name}\n", 1) if card.startswith(f"# {old.name}\n") else card
    card = card.replace(f"--model {old.name} -o", f"--model {new.name} -o")
    of_types = re.compile(rf"^- Types: {len(old.cell_types)}, from .*$", flags=re.MULTILINE)
    card = of_types.sub(f"- Types: {len(new.cell_types)}, named afterwards (see Names)", card, count=1)
    changes = "\n".join(f"- {table.kind} {before}: {after}" for before, after in table.names.items())
    section = (
        f"{NAMES_HEADING}\n\nThis is a renamed copy of the bundle '{old.name}' with sha256 "
        f"`{new.provenance.renamed_from}`; the encoder is the same. The sections above have the new names, other text "
        f"may have the old ones.\n\n{changes}\n"
    )
    return f"{replace_sections(card, new).rstrip()}\n\n{section}"
