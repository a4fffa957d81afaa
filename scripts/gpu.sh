#!/usr/bin/env bash
# What only a machine with a GPU can check; needs no network. Uses the Python given, which must have torch and pytest.
# A stage that fails does not keep the next ones from running: a GPU may be at hand once only.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
export BENIGN_KERNELS_CUDA=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

failed=()
say() { printf '==> %s (%d s so far)\n' "$*" "$SECONDS"; }
stage() { say "$1"; "${@:2}" || failed+=("$1"); }

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
  { echo "make gpu: $python has no torch that sees a GPU" >&2; exit 1; }
"$python" -c 'import numpy, pytest' || { echo "make gpu: $python needs numpy and pytest" >&2; exit 1; }
say "build"
"$python" -m _build
"$python" -m benign_kernels.cli info
stage "tests" "$python" -m pytest -q -m gpu --durations=10 python_tests

sanitize() {
  # torch asks the driver for functions that it may not have: refused calls are reported by the runtime, not here.
  local options=(--tool "$1" --error-exitcode 1 --print-limit 20)
  [[ $1 == memcheck ]] && options+=(--report-api-errors no)
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" "${options[@]}" "$python" scripts/exercise_cuda.py
}
sanitizer=$(command -v compute-sanitizer || echo "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
if [[ -x $sanitizer ]]; then
  for tool in memcheck racecheck synccheck; do stage "compute-sanitizer $tool" sanitize "$tool"; done
else
  say "compute-sanitizer is not installed: skipped"
fi

card=$("$python" -c 'import re, torch; print(re.sub(r"\W+", "_", torch.cuda.get_device_name()).lower())')
rows=bench/results/$card.json
bench() { "$python" -m benign_kernels.cli bench --device cuda --json "$rows" --budget "$@"; }
# A minute of timing each. Compilers and libraries, which take longer to start than to run, only where attacks are timed.
stage "benchmarks of the ops: rows in $rows" bench 60 --case call --case ops --case step \
  --provider eager --provider analytic --provider ours_graph
stage "benchmarks of the attacks: rows in $rows" bench 60 --case cuda
((${#failed[@]} == 0)) || { printf 'make gpu: failed: %s\n' "${failed[@]}" >&2; exit 1; }
say "all is well"
