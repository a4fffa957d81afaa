#!/usr/bin/env bash
# What only a machine with a GPU can check; needs no network. Uses the Python given, which must have torch and pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
export BENIGN_KERNELS_CUDA=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

say() { printf '==> %s\n' "$*"; }

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
  { echo "make gpu: $python has no torch that sees a GPU" >&2; exit 1; }
"$python" -c 'import numpy, pytest' || { echo "make gpu: $python needs numpy and pytest" >&2; exit 1; }
say "build"
"$python" -m _build
"$python" -m benign_kernels.cli info
say "tests"
"$python" -m pytest -q -m gpu python_tests
sanitizer=$(command -v compute-sanitizer || echo "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
if [[ -x $sanitizer ]]; then
  for tool in memcheck racecheck synccheck; do
    say "compute-sanitizer --tool $tool"
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$tool" --error-exitcode 1 --print-limit 20 \
      "$python" scripts/exercise_cuda.py
  done
else
  say "compute-sanitizer is not installed: skipped"
fi
card=$("$python" -c 'import re, torch; print(re.sub(r"\W+", "_", torch.cuda.get_device_name()).lower())')
say "benchmarks: rows in bench/results/$card.json"
mkdir -p bench/results
"$python" -m benign_kernels.cli bench --device cuda --json "bench/results/$card.json"
