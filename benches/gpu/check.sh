#!/usr/bin/env bash
# What a GPU shows, in at most 8 minutes: ceilings and kernels, parity with plain f64, cokv's speed on an 8B shape, transformers'
# beside it. Every step has its own limit, and the script goes on after a failure. Programs are built beforehand:
#
#   cargo build --release -p cokv-bench --bin cokv && cargo build --release -p cokv-cuda --examples
#   benches/gpu/check.sh [FOLDER-OF-PROGRAMS] [FOLDER-FOR-RESULTS]
set -u
programs=${1:-target/release}
out=${2:-target/gpu-check}
mkdir -p "$out"
floors=$programs/floors; parity=$programs/parity
[ -x "$floors" ] || { floors=$programs/examples/floors; parity=$programs/examples/parity; }
export COKV_CACHE=${COKV_CACHE:-$(mktemp -d)} PYTHONUNBUFFERED=1

step() { # name, seconds, command
  local name=$1 limit=$2; shift 2
  local started=$SECONDS
  timeout "$limit" "$@" >"$out/$name.txt" 2>&1
  echo "== $name: status $?, $((SECONDS - started)) s"
  tail -n "${LINES_SHOWN:-60}" "$out/$name.txt"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
step floors 60 "$floors"
step parity 100 "$parity"
step perf 150 "$programs/cokv" perf --random llama3-8b --device cuda --contexts 4096,8192 --sequences 1,8,32 --batches 8,64 --decode-tokens 16
step small 30 "$programs/cokv" perf --random smollm2 --device cuda --contexts 512 --batches 64
step peers 120 python3 "$(dirname "$0")/peers.py"
