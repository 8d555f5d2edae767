#!/usr/bin/env bash
# Build Horovod 0.28.1 for the Python in $PYTHON (default: python3), over the MPI whose mpicxx is found
# beside that Python or on PATH. About two minutes. Its sources ask for C++14, torch's headers need 17.
set -euo pipefail

python=$(command -v "${PYTHON:-python3}")
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
version=0.28.1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

export PATH="$(dirname "$python"):$PATH"
command -v mpicxx >/dev/null || {
  echo "build_horovod: no mpicxx on PATH; load your site's MPI module or install the extra distrain[mpi]" >&2
  exit 2
}
command -v g++ >/dev/null || { echo "build_horovod: no g++ on PATH; install a C++ compiler" >&2; exit 2; }

"$python" -m pip install --quiet cmake setuptools wheel packaging cloudpickle psutil pyyaml cffi
"$python" -m pip download --quiet --no-deps --no-build-isolation --no-binary=:all: -d "$work" "horovod==$version"
tar -xzf "$work/horovod-$version.tar.gz" -C "$work"
cd "$work/horovod-$version"
# The two places that fix the language standard.
grep -rl 'CMAKE_CXX_STANDARD 14' --include=CMakeLists.txt . | xargs sed -i 's/CMAKE_CXX_STANDARD 14/CMAKE_CXX_STANDARD 17/'
HOROVOD_WITH_PYTORCH=1 HOROVOD_WITH_MPI=1 HOROVOD_WITHOUT_GLOO=1 HOROVOD_WITHOUT_TENSORFLOW=1 \
  HOROVOD_WITHOUT_MXNET=1 "$python" -m pip install --quiet --no-build-isolation --no-deps .
cd / # not in the source tree, whose unbuilt horovod/ would be imported
"$python" -c 'import horovod.torch as hvd; print("horovod", hvd.__name__, "is ready; MPI built:", hvd.mpi_built())'
