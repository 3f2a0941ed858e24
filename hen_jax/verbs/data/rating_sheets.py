"""`hen data ratings`: blind sheets to be filled in by annotators, and back from them."""

import argparse
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.core.links import real_path
from hen_jax.core.outputs import output_files, require_no_link, require_ours
from hen_jax.core.ranges import Range, require_in
from hen_jax.data.rated_items import read_items
from hen_jax.data.rating_sheets import (
    conversation_item,
    lay_out_sheets,
    pair_item,
    write_key,
    write_sheet,
)
from hen_jax.data.votes import Kind
from hen_jax.verbs.data.ratings import RatingImport, import_ratings


def run_ratings(chosen: argparse.Namespace) -> None:
    """Imports votes, or exports items, as the flags say.

    Raises:
      InputError: flags that do not go together, or as `import_ratings` and `export_items`.
    """
    if chosen.export_items is not None:
        if chosen.files or chosen.items is not None or chosen.key is None:
            raise InputError("--export-items takes --key FILE, and no files of votes nor --items")
        export_items(
            chosen.export_items,
            chosen.schema,
            chosen.kind,
            chosen.out,
            chosen.key,
            sheets=chosen.sheets,
            seed=chosen.seed,
        )
        return
    if not chosen.files or chosen.items is None:
        raise InputError("give files of votes and --items, or --export-items")
    import_ratings(
        RatingImport(
            files=chosen.files,
            kind=chosen.kind,
            items=chosen.items,
            schema=chosen.schema,
            out=chosen.out,
            key=chosen.key,
            scale=tuple(chosen.scale),
            columns=dict(chosen.columns),
            annotators=chosen.annotators,
            weights=chosen.weights,
            agreement=not chosen.no_agreement,
            seed=chosen.seed,
        )
    )


def export_items(
    file: Path, schema: str, kind: Kind, out: Path, key: Path, *, sheets: int = 2, seed: int = 0
) -> list[Path]:
    """Writes `sheet-01.csv` ... to the folder `out`, and the key to a file elsewhere.

    Raises:
      InputError: bad items, fewer than one sheet, a key among the sheets, or somebody else's files.
    """
    require_in("--sheets", sheets, Range(1, 999))
    require_in("--seed", seed, Range(0))
    require_no_link(out)
    if real_path(out) in real_path(key).parents:
        raise InputError(
            f"--key {key} lies in the folder of the sheets; give a place that annotators do not see"
        )
    names = [f"sheet-{number:02d}" for number in range(1, sheets + 1)]
    paths = [out / f"{name}.csv" for name in names]
    require_ours(*paths)
    require_ours(key)
    items = read_items(file, schema, kind)
    shown = [pair_item(pair) for pair in items.pairs.values()]
    shown += [conversation_item(name, said) for name, (_, said) in items.said.items()]
    laid = lay_out_sheets(shown, sheets, seed)
    with output_files(key) as (staged,):  # first: sheets without their key are lost
        write_key(staged, names, laid)
    with output_files(*paths) as places:
        for place, rows in zip(places, laid, strict=True):
            write_sheet(place, rows, kind)
    print(f"{out}: {sheets} sheets of {len(shown)} items; the key is {key}, keep it apart")
    return paths
