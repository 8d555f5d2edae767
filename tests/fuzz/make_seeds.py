"""Write the seeds of the decoder's fuzzer: small JPEGs of all kinds, plain and indexed, and raw pictures.

Usage: python tests/fuzz/make_seeds.py FOLDER
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "data" / "decode_native"))

from jpeg_pictures import SUBSAMPLINGS, encode, pink_picture
from PIL import Image

from distrain.data.decode import indexed
from distrain.data.raw_layout import to_raw, to_yuv420


def seeds() -> list[bytes]:
    """Return inputs: ten bytes of arguments (see fuzz_decode.c), then an image."""
    made = []
    for number, subsampling in enumerate(SUBSAMPLINGS * 3):
        width, height = 17 + 9 * number, 60 - 3 * number
        options = {} if subsampling == "440" else {"optimize": number % 2 == 0}
        jpeg = encode(pink_picture(number, width, height), subsampling, 30 + 5 * number, **options)
        crop = (0, 0, 0, 0) if number % 3 == 0 else (3, 2, width - 5, height - 4)
        arguments = struct.pack("<4hBB", *crop, 20 + number, 33 + number)
        blob = indexed.index(jpeg)
        assert blob is not None
        made += [arguments + jpeg, arguments + blob]
    restarts = encode(pink_picture(1, 50, 40), restart_marker_blocks=2)
    made.append(struct.pack("<4hBB", 0, 0, 0, 0, 16, 32) + restarts)
    for number, (width, height) in enumerate(((1, 1), (2, 3), (17, 9), (40, 31))):
        image = Image.fromarray(pink_picture(number, width, height))
        for crop in ((0, 0, width, height), (width // 2, height // 2, 1, 1)):
            arguments = struct.pack("<4hBB", *crop, 15 + 7 * number, 21 + 5 * number)
            made += [arguments + to_raw(image), arguments + to_yuv420(image)]
    return made


def main() -> None:
    """Write all seeds into the folder of the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (folder / f"seed{number:02d}").write_bytes(seed)


if __name__ == "__main__":
    main()
