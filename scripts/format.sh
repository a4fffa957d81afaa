#!/usr/bin/env bash
# Formats everything, with the tools in the folder given.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
"$bin/ruff" check --fix --exit-zero .
"$bin/ruff" format .
mapfile -t sources < <(git ls-files 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.cu' 'csrc/*.cuh')
"$bin/clang-format" -i "${sources[@]}"
