#!/usr/bin/env bash
# Installs the package in every way that users do, from its sdist into a fresh environment, and uses it.
#
#   scripts/check_install.sh [PYTHON [TORCH]]
#
# What cannot work (front ends that build in a temporary environment without torch) must stop with one sentence that
# says what to do. The CUDA half is left out: it is built the same way, and takes most of the time. For the same
# reason the compiler does not optimize: the tests run what is compiled as it is for users.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3} torch=${2:-torch==2.13.0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export BENIGN_KERNELS_CUDA=0 PIP_DISABLE_PIP_VERSION_CHECK=1
printf '#!/bin/sh\nexec %s "$@" -O0\n' "${CXX:-g++}" >"$work/c++"
chmod +x "$work/c++"
export CXX="$work/c++"

say() { printf '==> %s\n' "$*"; }
fail() { printf 'check_install: %s\n' "$*" >&2; tail -n 40 "$work/log" | cut -c1-300 >&2; exit 1; }
quietly() { "$@" >"$work/log" 2>&1 || fail "failed: $*"; }

use() { # the command and the ops of what is installed, away from the tree
  (cd "$work" && "$work/venv/bin/benign" info >/dev/null && "$work/venv/bin/python" - "$1" <<'PYTHON'
import sys
from pathlib import Path
import torch
import benign_kernels as bk
from benign_kernels import _build_info, _host

where = Path(bk.__file__).resolve()
assert str(where).startswith(sys.argv[1]), f"imported from {where}, not from {sys.argv[1]}"
assert (where.parent / "py.typed").exists()
x, W, a = torch.randn(5, 3), torch.randn(4, 3), torch.randn(4)
torch.testing.assert_close(bk.two_layer(x, W, a), torch.relu(x @ W.T) @ a)
assert bk.l2_pgd(x, torch.ones(5), W, a, radius=0.5, steps=3).x.shape == x.shape
PYTHON
  ) || fail "$2 does not work once installed"
  quietly "$work/venv/bin/pip" uninstall --yes benign_kernels
}

stops() { # a front end that must refuse with the sentence
  if "$@" >"$work/log" 2>&1; then fail "was expected to stop: $*"; fi
  grep -q -e '--no-build-isolation' "$work/log" || fail "stopped without the sentence: $*"
}

say "an environment with $torch"
quietly "$python" -m venv "$work/venv"
pip=$work/venv/bin/pip
quietly "$pip" install "$torch" numpy build
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# Everything below is built in the sdist's folder, which holds less than a checkout: what it lacks is missed, and the
# kernels are compiled once. `make test` installs from the checkout.
say "python -m build --sdist, from a copy of the tree"
mkdir "$work/checkout" "$work/tree"
git ls-files -z | xargs -0 tar -cf - --ignore-failed-read 2>/dev/null | tar -xf - -C "$work/checkout"
quietly "$work/venv/bin/python" -m build --sdist --outdir "$work/dist" "$work/checkout"
tar -xf "$work"/dist/*.tar.gz --strip-components=1 -C "$work/tree"
cd "$work/tree"

say "pip install . (isolated)"
quietly "$pip" install --verbose .
grep -q "torch .* from $site/torch" "$work/log" || fail "pip install . was not built against the torch installed"
use "$site" "pip install ."

say "pip install -e . (isolated)"
quietly "$pip" install --editable .
use "$work/tree" "pip install -e ."
rm benign_kernels/*.so

say "python -m build --wheel stops with the sentence"
stops "$work/venv/bin/python" -m build --wheel --outdir "$work/dist"

say "python -m build --wheel with BENIGN_KERNELS_TORCH"
quietly env BENIGN_KERNELS_TORCH="$site/torch" "$work/venv/bin/python" -m build --wheel --outdir "$work/dist"
rm "$work"/dist/*.whl

say "sdist -> wheel -> pip install"
quietly "$pip" wheel --no-deps --wheel-dir "$work/dist" .
"$work/venv/bin/python" - "$work/dist" <<'PYTHON' || fail "the wheel or the sdist holds the wrong files"
import sys, tarfile, zipfile
from pathlib import Path

(sdist,), (wheel,) = (list(Path(sys.argv[1]).glob(pattern)) for pattern in ("*.tar.gz", "*.whl"))
names = zipfile.ZipFile(wheel).namelist()
tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
assert tops == {"benign_kernels"}, f"{wheel.name} has {tops}"
for part in ("libbenign_kernels.so", "_host", "py.typed"):
    assert any(name.startswith(f"benign_kernels/{part}") for name in names), f"{wheel.name} lacks {part}"
sources = tarfile.open(sdist).getnames()
assert any(name.endswith("csrc/sources.txt") for name in sources) and any(name.endswith("_build/backend.py") for name in sources)
assert not any(name.endswith((".so", ".o", ".pyc")) for name in sources), f"{sdist.name} has built files"
PYTHON
quietly "$pip" install --no-deps "$work"/dist/*.whl
use "$site" "the wheel of the sdist"

say "uv pip install . stops with the sentence"
quietly "$pip" install uv "setuptools>=77" ninja "pybind11>=2.12"
uv() { VIRTUAL_ENV="$work/venv" "$work/venv/bin/uv" "$@"; }
stops uv pip install --no-deps .

say "uv pip install --no-build-isolation ."
quietly uv pip install --no-deps --no-build-isolation .
use "$site" "uv pip install --no-build-isolation ."

say "pip install --no-build-isolation ."
quietly "$pip" install --no-build-isolation .
use "$site" "pip install --no-build-isolation ."
say "all installations work"
