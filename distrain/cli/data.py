"""Commands of the data: pack, pack info, synthesize, digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from distrain.cli.progress import show_progress

_Json = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout, nothing else")]
_Workers = Annotated[int | None, typer.Option(min=1, help="worker processes; default: one per CPU core")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command()(pack)
    app.command()(synthesize)
    app.command()(digits)


def pack(
    source: Annotated[
        str,
        typer.Argument(
            help="imagefolder:PATH, list:FILE, webdataset:PATTERN or parquet:PATTERN; or the word info"
        ),
    ],
    out: Annotated[Path, typer.Argument(help="folder of the pack")],
    short_side: Annotated[
        int | None,
        typer.Option(help="shrink images to this short side, e.g. 256; 0: keep their size (default)"),
    ] = None,
    quality: Annotated[
        int | None, typer.Option(help="of JPEG files that are encoded anew (default: 90)")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="jpeg, yuv420 or raw (default: jpeg); the last two are pixels")
    ] = None,
    index: Annotated[
        bool,
        typer.Option("--index", help="about 1 % larger, and faster to decode by the native decoder"),
    ] = False,
    dedup: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD:BITS",
            help="leave near-duplicates out, e.g. phash:4 (also dhash, ahash): images of one class whose "
            "hashes differ in at most so many of 64 bits",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="with --dedup: write the page OUT.html of pairs, pack nothing")
    ] = False,
    force_classes: Annotated[
        bool, typer.Option("--force-classes", help="take folders named train and val for classes")
    ] = False,
    workers: _Workers = None,
    as_json: _Json = False,
) -> None:
    """Pack images for training, or describe a pack: distrain pack info OUT.

    The pack appears when it is whole. If the command is killed, give it again: it goes on from the
    finished shards, which wait in OUT.partial.
    """
    from distrain.data.format import read_manifest
    from distrain.data.ingest.convert import PackOptions
    from distrain.data.pack import pack as make_pack
    from distrain.errors import UsageError
    from distrain.machine import cores

    given = {"short_side": short_side, "quality": quality, "encoding": encoding, "dedup": dedup}
    given |= {"index": index or None}
    chosen = {name: value for name, value in given.items() if value is not None}
    if source == "info":
        if chosen or workers:
            raise UsageError("distrain pack info", "it takes no options but --json", "leave them out")
        _show(out, read_manifest(out), as_json)
        return
    options = PackOptions(**chosen)  # type: ignore[arg-type]
    if dry_run:
        if dedup is None:
            raise UsageError("--dry-run", "it shows what --dedup would leave out", "add e.g. --dedup phash:4")
        _show_pairs(source, out, options, workers or cores(), as_json)
        return
    with show_progress("packing" if dedup is None else "comparing, then packing") as progress:
        manifest = make_pack(
            source,
            out,
            options,
            workers=workers or cores(),
            progress=progress,
            hashed=progress,
            tell=_tell_duplicates,
            force_classes=force_classes,
        )
    _show(out, manifest, as_json)


def _show_pairs(source: str, out: Path, options: Any, workers: int, as_json: bool) -> None:
    """Compare the images of a source, print the curve and write the page of pairs."""
    from distrain.data.disk import check_writable
    from distrain.data.ingest.dedup import Rule, find_duplicates
    from distrain.data.ingest.listing import printable
    from distrain.data.ingest.pairs_page import write_page
    from distrain.data.ingest.sources import list_source
    from distrain.errors import UsageError

    rule, listing = Rule.parse(options.dedup), list_source(source)
    if out.name in ("", ".."):
        raise UsageError(str(out), "it has no name", "give the name of a new pack")
    page = out.with_name(out.name + ".html")
    check_writable(page)
    with show_progress("comparing") as progress:
        found = find_duplicates(listing, rule, options, workers, progress)
    _tell_duplicates(found)
    write_page(page, source, listing, rule, found)
    if as_json:
        told = {"page": str(page), "images": found.compared, "duplicates": len(found.duplicates)}
        print(json.dumps({**told, "duplicates_at": found.curve}))
    else:
        print(f"{printable(str(page))}: {len(found.duplicates)} of {found.compared} images would be left out")


def _tell_duplicates(found: Any) -> None:
    """Print on stderr what each distance would leave out, before anything is."""
    from rich.console import Console
    from rich.table import Table

    table = Table("bits", "left out", "of all", title="near-duplicates", title_justify="left")
    for bits, count in enumerate(found.curve):
        table.add_row(str(bits), str(count), f"{count / max(1, found.compared):.2%}")
    Console(stderr=True).print(table)


def synthesize(
    out: Annotated[Path, typer.Argument(help="folder that gets train/ and val/ with a folder a class")],
    classes: Annotated[int, typer.Option(help="number of classes")],
    images: Annotated[int, typer.Option(help="training images in all")],
    val_images: Annotated[int | None, typer.Option(help="held-out images in all (default: a tenth)")] = None,
    seed: Annotated[int, typer.Option(help="another seed, other pictures")] = 0,
    workers: _Workers = None,
    as_json: _Json = False,
) -> None:
    """Write an ImageNet-shaped tree of synthetic JPEG files whose classes can be learned."""
    from distrain.data.ingest.synthesize import synthesize as write
    from distrain.machine import cores

    counts = write(out, classes, images, val_images, seed, workers or cores())
    _tell({"tree": str(out), "classes": classes, **counts}, as_json)


def digits(
    out: Annotated[Path, typer.Argument(help="folder that gets train/ and val/ with a folder a digit")],
    as_json: _Json = False,
) -> None:
    """Write scikit-learn's 1,797 real handwritten digits as class folders of JPEG files."""
    from distrain.data.ingest.digits import write_digits

    _tell({"tree": str(out), "classes": 10, **write_digits(out)}, as_json)


def _tell(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(told))
        return
    from distrain.data.ingest.listing import printable

    out = printable(told["tree"])
    print(f"{out}/train: {told['train']} images, {out}/val: {told['val']} images, {told['classes']} classes")


def _show(path: Path, manifest: Any, as_json: bool) -> None:
    from rich.console import Console

    from distrain.data.ingest import summary
    from distrain.data.ingest.listing import printable

    if as_json:
        print(json.dumps(summary.as_json(path, manifest)))
    else:
        summary.print_table(Path(printable(str(path))), manifest, Console())
