#!/usr/bin/env bash
# What a GPU shows, in at most 8 minutes: kernels against what the card can do, where the time of a pass goes, the contract of all
# backends, cokv's speed on an 8B shape, a whole calibration, transformers beside it, a checker of memory. Every step has its own
# limit, and the script goes on after a failure. Programs are built beforehand, also for another machine:
#
#   cargo build --release -p cokv-bench --bin cokv && cargo build --release -p cokv-cuda --examples
#   benches/gpu/check.sh [FOLDER-OF-PROGRAMS] [FOLDER-FOR-RESULTS]
#
# With MODEL, a GGUF file, it also holds a real model on the card to the processor's results, and serves it. STEPS names those to run.
set -u
programs=$(realpath "${1:-target/release}")
out=${2:-target/gpu-check}
here=$(realpath "$(dirname "$0")")
mkdir -p "$out"
examples=$programs
[ -x "$examples/floors" ] || examples=$programs/examples
COKV_CACHE=${COKV_CACHE:-$(mktemp -d)}
export COKV_CACHE PYTHONUNBUFFERED=1

step() { # name, limit in seconds, lines to show, command
  local name=$1 limit=$2 lines=$3 started=$SECONDS
  shift 3
  [[ -z ${STEPS:-} || " $STEPS " == *" $name "* ]] || return 0
  timeout "$limit" "$@" > "$out/$name.txt" 2>&1
  echo "== $name: status $?, $((SECONDS - started)) s"
  tail -n "$lines" "$out/$name.txt"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
python3 "$here/records.py" > "$out/records.jsonl"
step floors 40 60 "$examples/floors"
step trace 40 200 "$examples/trace"
step parity 80 20 "$examples/parity"
step perf 60 40 "$programs/cokv" perf --random llama3-8b --device cuda --contexts 4096,8192 --sequences 1,8,32 --batches 8,64 --decode-tokens 16
step small 30 20 "$programs/cokv" perf --random smollm2 --device cuda --contexts 512 --batches 64
step estimate 80 8 "$programs/cokv" estimate --model random:llama3-8b --device cuda --data "$out/records.jsonl" --split all \
  --records 100 --max-evaluations 20000 --reliability 1 --quiet --out "$out/heads.json"
step peers 60 10 python3 "$here/peers.py"
step sanitizer 60 12 compute-sanitizer --tool memcheck "$programs/cokv" perf --random smollm2 --device cuda --contexts 300 --budgets 64 \
  --decode-tokens 2 --batches 4

[ -n "${MODEL:-}" ] || exit 0
step real 200 60 python3 "$here/both_devices.py" "$programs/cokv" "$MODEL" "$out/real"

serve() { # what clients wait for, on the card
  "$programs/cokv" serve --model "path:$MODEL" --device cuda --port 8091 2> "$out/serve.log" &
  local server=$!
  for _ in $(seq 60); do
    python3 -c 'import urllib.request as u; u.urlopen("http://127.0.0.1:8091/health")' 2> /dev/null && break
    sleep 0.5
  done
  python3 "$here/../serve/load.py" http://127.0.0.1:8091 s1 s2 s3 s4 s5 --document "${DOCUMENT:-7200}" --rounds 2
  kill $server
}
export -f serve
export programs out here
step serve 90 12 bash -c serve
