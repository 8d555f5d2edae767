"""A page to look at: near-duplicates side by side with the images that are kept."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

from PIL import Image

from distrain.data.disk import write_file
from distrain.data.ingest.dedup import Found, Rule
from distrain.data.ingest.listing import Listing, SourceImage, printable
from distrain.data.ingest.readers import Readers
from distrain.data.ingest.upright import upright

_SHOWN = 500  # pairs; those that differ most come first, since they are the doubtful ones
_SIDE = 160  # pixels

_STYLE = """
body { font: 14px sans-serif; margin: 2em; max-width: 60em } td, th { padding: .3em .8em; text-align: left }
figure { display: inline-block; margin: .3em } figcaption { max-width: 160px; overflow-wrap: anywhere }
section { border-top: 1px solid #ccc; padding: .5em 0 }
"""


def write_page(path: Path, source: str, listing: Listing, rule: Rule, found: Found) -> None:
    """Write one HTML file without references to others: the curve, then pairs with small pictures.

    Raises:
        DataError: the disk is full, or the folder cannot be written.

    Args:
        path: of the page.
        source, listing: what was compared.
        rule: how.
        found: the result.
    """
    shown = sorted(found.duplicates, key=lambda pair: -pair[2])[:_SHOWN]
    rows = "".join(
        f"<tr><td>{bits}<td>{count}<td>{count / max(1, found.compared):.2%}"
        for bits, count in enumerate(found.curve)
    )
    with Readers() as readers:
        sections = "".join(
            f"<section><b>{bits} bits</b><br>"
            + _figure(readers, listing.images[keeper], "kept")
            + _figure(readers, listing.images[image], "left out")
            + "</section>"
            for image, keeper, bits in shown
        )
    title = (
        f"Near-duplicates of {html.escape(printable(source))} by {rule.method}, at most {rule.distance} bits"
    )
    page = (
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
        f"<p>{len(found.duplicates)} of {found.compared} images would be left out; {len(shown)} pairs are "
        "shown, those that differ most first.</p>"
        f"<table><tr><th>bits<th>left out<th>of all{rows}</table>{sections}\n"
    )
    write_file(path, page.encode())


def _figure(readers: Readers, image: SourceImage, role: str) -> str:
    caption = f"<figcaption>{role}: {html.escape(image.name)}</figcaption>"
    try:
        picture = upright(Image.open(io.BytesIO(readers.read(image)))).convert("RGB")
    except Exception as error:  # it has a hash, but hashes do not look at every pixel
        return f"<figure>{html.escape(str(error))}{caption}</figure>"
    picture.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    data = base64.b64encode(out.getvalue()).decode()
    return f"<figure><img src=data:image/jpeg;base64,{data}>{caption}</figure>"
