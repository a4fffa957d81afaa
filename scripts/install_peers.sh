#!/usr/bin/env bash
# Installs the libraries that the benchmarks and the compat tests compare with into .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup_venv.sh "$1" "$2" test,experiments,bench
.venv/bin/python -c 'import torchattacks, cleverhans' 2>/dev/null && exit 0
# These two ask for torchvision, which would replace torch; what is used of them needs neither it nor anything else.
.venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps torchattacks==3.5.1 cleverhans==4.0.0
