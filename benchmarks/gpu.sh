#!/usr/bin/env bash
# Every GPU benchmark and test; the time limits of the parts add up to less than 8 minutes. See benchmarks/gpu.py.
#
#     benchmarks/gpu.sh                 on a machine with a CUDA device
#     benchmarks/gpu.sh --small         on a CPU, at small sizes
#     benchmarks/gpu.sh --out FOLDER    results.json and results.md go there; default: $OUT, or a temporary folder
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
