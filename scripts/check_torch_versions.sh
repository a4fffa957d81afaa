#!/usr/bin/env bash
# Loads one and the same binary under several releases of torch and runs the op tests under each.
#
#   scripts/check_torch_versions.sh ENVIRONMENT...
#
# An environment is a Python that has torch, numpy and pytest (/path/to/python), or a requirement such as torch==2.11.0,
# for which an environment is made under build/. The binary is the one of the tree: `make build` makes it.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD library=benign_kernels/libbenign_kernels.so
(($#)) || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
[[ -f $library ]] || { echo "check_torch_versions: no $library: make build" >&2; exit 1; }
before=$(cksum <"$library")

python_of() { # the interpreter of an environment, made where a requirement is named
  [[ $1 == torch* ]] || { echo "$1"; return; }
  local venv=$root/build/environments/$1
  if [[ ! -x $venv/bin/pytest ]]; then
    echo "==> an environment with $1" >&2
    "${PYTHON:-python3}" -m venv "$venv" >&2
    "$venv/bin/python" -m pip --disable-pip-version-check install --quiet "$1" numpy pytest hypothesis mpmath >&2
  fi
  echo "$venv/bin/python"
}

# What meets torch through the library: its ops, their derivatives, compilation and errors.
tests=(two_layer two_layer_value_and_grad two_layer_parameter_grad pgd_step attack autograd compile errors network)
tests=("${tests[@]/#/python_tests/test_}")
tests=("${tests[@]/%/.py}")
for environment in "$@"; do
  python=$(python_of "$environment")
  "$python" - "$root" <<'PYTHON'
import sys

sys.path.insert(0, sys.argv[1])
import torch
import benign_kernels

assert benign_kernels.__file__.startswith(sys.argv[1])
print(f"==> torch {torch.__version__}, Python {sys.version.split()[0]}", flush=True)
PYTHON
  "$python" -m pytest -q -p no:cacheprovider "${tests[@]}"
  [[ $(cksum <"$library") == "$before" ]] || { echo "check_torch_versions: the binary changed" >&2; exit 1; }
done
echo "==> one binary ($before) serves: $*"
