"""Build step of the install: compile the package's C where a compiler is found.

Everything else about the package is in pyproject.toml. Without a compiler, or where compiling fails,
the install goes on: the package then does the same in other ways, which are slower.
"""

import runpy
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))  # the builders share distrain/native_build.py
DECODER = Path("distrain", "data", "decode", "build_native.py")
WIRE = Path("distrain", "comm", "build_native.py")
CHECKSUM = Path("distrain", "data", "checksum", "build_native.py")
LOST = ((DECODER, "images decode"), (WIRE, "ranks communicate"), (CHECKSUM, "data loads"))


class BuildWithNative(build_py):
    """Copies the modules as usual, then compiles the libraries beside them."""

    def run(self):
        """Run the builds; failing to compile is reported, never raised."""
        super().run()
        target = ROOT if self.editable_mode else Path(self.build_lib)
        for script, slower in LOST:
            native = runpy.run_path(str(ROOT / script))
            try:
                native["build"](target.resolve() / script.parent / native["LIBRARY"].name)
            except native["BuildError"] as error:
                print(f"{script.parent}: not compiled, {slower} slower: {error}", file=sys.stderr)


class MaybeBinary(Distribution):
    """A wheel that holds compiled libraries is for one platform only."""

    def has_ext_modules(self):
        """Whether the wheel will be platform-specific."""
        return runpy.run_path(str(ROOT / WIRE))["find_compiler"]() is not None


setup(
    cmdclass={"build_py": BuildWithNative},
    distclass=MaybeBinary,
    # An editable install puts this folder on the path. The other way, a finder, is asked after the folder of
    # a user's script: there a checkout named `distrain` would be taken for the package, and be empty.
    options={"editable_wheel": {"mode": "compat"}},
    package_data={
        "distrain.bench": ["page.md"],
        "distrain.comm": ["csrc/*.c", "csrc/*.h"],
        "distrain.data.checksum": ["csrc/*.c", "csrc/*.h"],
        "distrain.data.decode": ["csrc/*.c", "csrc/*.h"],
        "distrain.launch": ["scripts/*.sh", "scripts/slurm/*"],
    },
)
