"""Build the decoder's fuzzer with clang, AddressSanitizer and UndefinedBehaviorSanitizer.

Usage: python tests/fuzz/build.py OUTPUT
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from distrain.data.decode import build_native

SANITIZERS = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def main() -> None:
    """Compile the sources of the package and the target, and link them with libFuzzer."""
    target = Path(__file__).with_name("fuzz_decode.c")
    with tempfile.TemporaryDirectory() as name:
        coverage = [*SANITIZERS, "-fsanitize=fuzzer-no-link"]
        objects = build_native.compile_objects(["clang"], Path(name), coverage)
        subprocess.run(
            ["clang", *SANITIZERS, "-fsanitize=fuzzer", "-o", sys.argv[1], str(target), *map(str, objects)],
            check=True,
        )


if __name__ == "__main__":
    main()
