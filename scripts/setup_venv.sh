#!/usr/bin/env bash
# Creates .venv at the repository's root and installs torch, the package (in place, with the `benign` command) and the
# named extras into it; does nothing where that was done before.
#
#   scripts/setup_venv.sh PYTHON TORCH EXTRA[,EXTRA...]
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 torch=$2 extras=$3

say() { printf '==> %s\n' "$*"; }
fail() { printf 'make: %s\n' "$*" >&2; exit 1; }

# One stamp per set of extras: what was installed, by what the installation depends on.
stamp=.venv/.installed-$extras
wanted="$torch $(cat pyproject.toml scripts/setup_venv.sh | cksum)"
[[ -x .venv/bin/benign && -f $stamp && $(<"$stamp") == "$wanted" ]] && exit 0

if [[ ! -x .venv/bin/python ]]; then
  command -v "$python" >/dev/null || fail "no $python; name a Python ≥ 3.10 with PYTHON=..."
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$python is $("$python" -V 2>&1), and 3.10 or newer is needed; name another with PYTHON=..."
  command -v "${CXX:-g++}" >/dev/null || command -v clang++ >/dev/null || fail "no C++ compiler; install g++"
  say "creating .venv with $("$python" -V)"
  "$python" -m venv .venv || fail "$python -m venv fails (Debian and Ubuntu: apt install python3-venv)"
fi
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
say "installing $torch and the build tools into .venv"
pip install --quiet "$torch" numpy "setuptools>=77" ninja "pybind11>=2.12"
say "building benign_kernels and installing it in place, with the extras $extras"
pip install --quiet --no-build-isolation --editable ".[$extras]"
printf '%s' "$wanted" >"$stamp"
