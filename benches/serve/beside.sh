#!/usr/bin/env bash
# cokv's server and another one, in turn, under the same load: benches/serve/beside.sh COKV MODEL.gguf ROUNDS OTHER-COMMAND…
#
#   benches/serve/beside.sh target/native/release/cokv smollm2.gguf 3 \
#     llama-server -m smollm2.gguf --threads 2 --parallel 8 --ctx-size 81920 --cache-ram 8192 --port 8082
#
# The other command listens at port 8082. Servers start anew for every round; with SCENARIOS (s1 s2 …), DOCUMENT (tokens) and CLIENTS the
# load is another. Prints a line of JSON for each scenario, with whose it is.
set -euo pipefail
cokv=$1 model=$2 rounds=$3
shift 3
load=$(dirname "$0")/load.py
server=
trap 'kill $server 2> /dev/null' EXIT

# Name, port, then the command.
measure() {
    local name=$1 port=$2
    shift 2
    "$@" > /dev/null 2>&1 &
    server=$!
    for _ in $(seq 120); do
        python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/health')" 2> /dev/null && break
        sleep 0.5
    done
    python3 "$load" "http://127.0.0.1:$port" ${SCENARIOS:-s1 s2 s3 s4 s5} --rounds 1 --seed "$seed" \
        --document "${DOCUMENT:-8000}" --clients "${CLIENTS:-8}" | sed "s/^{/{\"server\": \"$name\", /"
    kill "$server"
    wait "$server" 2> /dev/null || true
}

for round in $(seq "$rounds"); do
    seed=$((RANDOM * 100 + round))
    measure cokv 8081 "$cokv" serve --model "path:$model" --device cpu --port 8081
    measure other 8082 "$@"
done
