#!/usr/bin/env bash
# Style and types, with the tools in the folder given.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=$1 status=0

run() { printf '==> %s\n' "$1"; shift; "$@" || status=1; }

run "ruff check" "$bin/ruff" check .
run "ruff format" "$bin/ruff" format --check .
mapfile -t sources < <(git ls-files 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.cu' 'csrc/*.cuh')
run "clang-format" "$bin/clang-format" --dry-run -Werror "${sources[@]}"
run "mypy" "$bin/mypy"
exit $status
