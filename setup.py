"""Build step of the install: compile the native JPEG decoder where a C compiler is found.

Everything else about the package is in pyproject.toml. Without a compiler, or where compiling fails,
the install goes on: the package then decodes with simplejpeg + OpenCV, which is slower.
"""

import runpy
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
DECODE = Path("distrain", "data", "decode")
native = runpy.run_path(str(ROOT / DECODE / "build_native.py"))


class BuildWithNative(build_py):
    """Copies the modules as usual, then compiles the decoder beside them."""

    def run(self):
        """Run the build; failing to compile is reported, never raised."""
        super().run()
        target = ROOT if self.editable_mode else Path(self.build_lib)
        try:
            native["build"](target.resolve() / DECODE / "_native.so")
        except native["BuildError"] as error:
            print(f"native decoder: not built, decoding will be slower: {error}", file=sys.stderr)


class MaybeBinary(Distribution):
    """A wheel that holds the compiled library is for one platform only."""

    def has_ext_modules(self):
        """Whether the wheel will be platform-specific."""
        return native["find_compiler"]() is not None


setup(
    cmdclass={"build_py": BuildWithNative},
    distclass=MaybeBinary,
    package_data={"distrain.data.decode": ["csrc/*.c", "csrc/*.h"]},
)
