#!/usr/bin/env bash
# Runs of one configuration, with a calibration, a detection, a choice and a matrix, on a real Slurm cluster of four nodes on this machine,
# held against one process: left alone; with nodes killed (kill -9 of slurmd and of all that it started) and tasks preempted at random
# moments; with a minute for each task; cancelled; under clocks that differ, where faketime is there; with a node that does not see the
# run's folder; and with a disk that fills up. Needs root, Debian's slurm-wlm and munge, and a built cokv.
#
#   benches/cluster/check.sh COKV START_CLUSTER [MOMENTS]     # START_CLUSTER start|stop FOLDER [NODES], which writes FOLDER/slurm.conf
#
# Prints a line for every figure of docs/clusters.md; the first thing that is not as it should be ends it.
set -euo pipefail
cokv=$(realpath "$1") tool=$(realpath "$2") moments=${3:-10}
here=$(cd "$(dirname "$0")" && pwd) work=$(mktemp -d /tmp/cokv-cluster-XXXX)
cluster=$work/slurm
export SLURM_CONF=$cluster/slurm.conf CUDA_VISIBLE_DEVICES=
# A requeued job waits for two minutes, for the sake of its credentials: here they end earlier.
# What is submitted to the partition `urgent` preempts.
sed -E 's#^JobRequeue=1#JobRequeue=1\nAuthInfo=cred_expire=5\nPreemptType=preempt/partition_prio\nPreemptMode=REQUEUE#
    s#^(PartitionName=all .*)#\1\nPartitionName=urgent Nodes=ALL PriorityTier=10 State=UP#' "$tool" > "$work/start.sh"
trap 'squeue --noheader --format=%A | sort -u | xargs -r scancel; sleep 3; bash "$work/start.sh" stop "$cluster"; umount -q "$work/full"' EXIT
bash "$work/start.sh" start "$cluster" 4 > /dev/null
cd "$work"

say() { printf '%-44s %s\n' "$1" "$2"; }
# A run's configuration: $1 names it, and its folder.
configure() { sed "s/@/$1/" "$here/run.toml" > "$1.toml"; }
# All rows, sorted, without what no two runs have in common.
rows() { cat "$1"/results*.jsonl | sed -E 's/,"(prefill|decode)_seconds":[^,}]*|,"batch_rows":[0-9]*//g' | sort; }
fingerprints() { cat "$1"/results*.jsonl | grep -o '^{"fingerprint":"[^"]*"' | sort; }
# Waits for the end of a run; $2 seconds at most.
finished() {
    for _ in $(seq "$2"); do
        [ -f "$1/report/index.html" ] && return
        sleep 1
    done
    "$cokv" cluster status "$1"; echo "$1 did not come to its end in $2 s" >&2; exit 1
}
same() {
    [ "$(fingerprints of-calm/x | wc -l)" = "$(fingerprints "$1" | uniq | wc -l)" ] || { echo "rows lost in $1" >&2; exit 1; }
    [ "$(rows of-calm/x | sha256sum)" = "$(rows "$1" | uniq | sha256sum)" ] || { echo "$1 has other rows" >&2; exit 1; }
    cmp of-calm/x/table.md "$1/table.md" && cmp of-calm/x/report/cells.csv "$1/report/cells.csv"
}

configure calm
SECONDS=0
"$cokv" select --config calm.toml --quiet > /dev/null 2>&1
"$cokv" bench --config calm.toml --quiet > /dev/null 2>&1
say "one process" "$(fingerprints of-calm/x | wc -l) rows, $SECONDS s"

configure spread
SECONDS=0
"$cokv" cluster submit --config spread.toml --tasks 8 --grace 60 --sbatch time=60
finished of-spread/x 900
same of-spread/x
say "four nodes" "the same rows and table, $SECONDS s"

# Kills a node with everything that it started, and brings it back once Slurm has missed it (SlurmdTimeout).
kill_node() {
    local daemon; daemon=$(cat "$cluster/slurmd-$1.pid")
    for environment in /proc/[0-9]*/environ; do
        local process=${environment#/proc/}; process=${process%/environ}
        if tr '\0' '\n' < "$environment" 2> /dev/null | grep -qx "SLURMD_NODENAME=$1"; then
            local parent; parent=$(awk '{print $4}' "/proc/$process/stat" 2> /dev/null || true)
            grep -q slurmstepd "/proc/$parent/comm" 2> /dev/null && kill -9 "$parent" 2> /dev/null || true
            kill -9 "$process" 2> /dev/null || true
        fi
    done
    kill -9 "$daemon" 2> /dev/null || true
    (sleep 25; slurmd -N "$1" -f "$SLURM_CONF") &
}

configure killed
SECONDS=0
"$cokv" cluster submit --config killed.toml --tasks 8 --grace 60 --sbatch time=60 > /dev/null
jobs=$(tr -cd '0-9,' < of-killed/x/cluster/jobs.json | sed 's/^,*//; s/,,*/,/g')
killed=0 preempted=0
# Some while heads are measured, some while settings are chosen, most while the matrix runs.
for moment in $(seq "$moments"); do
    case $((moment * 10 / moments)) in [0-3]) stage=calibrate-2 ;; 4 | 5) stage=select ;; *) stage=matrix ;; esac
    running=
    for _ in $(seq 600); do
        sleep "0.$((RANDOM % 10))"
        running=$(squeue --noheader --states=running --array --format='%j %N' | grep -e "-$stage " | shuf | head -1) && break
    done
    [ -n "$running" ] || continue
    sleep $((RANDOM % 5))
    read -r _ node <<< "$running"
    if [ $((RANDOM % 2)) = 0 ]; then
        kill_node "$node" && killed=$((killed + 1))
    else
        sbatch --quiet --partition=urgent --nodelist="$node" --output=/dev/null --wrap='sleep 1' && preempted=$((preempted + 1))
    fi
done
finished of-killed/x 1800
wait
same of-killed/x
say "$killed nodes killed, $preempted tasks preempted" "the same rows and table, $SECONDS s"
say "rows made twice, of which the first stays" "$(($(fingerprints of-killed/x | wc -l) - $(fingerprints of-calm/x | wc -l)))"

# A task that does not come to its end in its minute, and a run that is cancelled and goes on.
configure timed
mkdir of-timed && cp -r of-calm/importance of-timed/
"$cokv" cluster submit --config timed.toml --tasks 1 --time 1 --grace 20 > /dev/null 2>&1
finished of-timed/x 1200
same of-timed/x
say "one task with a minute" "the same rows and table, in $(grep -c '^matrix-0 on' of-timed/x/cluster/logs/matrix-0.log) runs"

configure ended
mkdir of-ended && cp -r of-calm/importance of-ended/
"$cokv" cluster submit --config ended.toml --tasks 8 --grace 60 > /dev/null 2>&1
until [ "$(cat of-ended/x/results*.jsonl 2> /dev/null | wc -l)" -gt 8 ]; do sleep 0.2; done
"$cokv" cluster cancel of-ended/x > /dev/null
for _ in $(seq 60); do [ -z "$(squeue --noheader)" ] && break; sleep 1; done
sleep 10
[ -z "$(squeue --noheader)" ] || { squeue; echo "what was cancelled came back" >&2; exit 1; }
"$cokv" cluster resubmit of-ended/x > /dev/null 2>&1
finished of-ended/x 900
same of-ended/x
say "cancelled, then resubmit" "the same rows and table"

# Nodes whose clocks are hours apart, where there is a way to make them so.
if command -v faketime > /dev/null; then
    configure skewed
    mkdir of-skewed && cp -r of-calm/importance of-skewed/
    "$cokv" cluster prepare --config skewed.toml --tasks 4 > /dev/null 2>&1
    work_at() { faketime -f "$1" "$cokv" cluster work --run of-skewed/x --stage "$2" --index "$3" > skewed.log 2>&1 || { cat skewed.log; exit 1; }; }
    hours=(-1h +1h)
    work_at +1h fetch 0
    for index in 0 1 2 3; do work_at "${hours[index % 2]}" select "$index"; done
    work_at -1h choose 0
    for index in 3 2 1 0; do work_at "${hours[index % 2]}" matrix "$index"; done
    work_at +1h report 0
    same of-skewed/x
    say "clocks two hours apart" "the same rows and table"
fi

# A node that does not see the run's folder.
kill "$(cat "$cluster/slurmd-n3.pid")"; sleep 2
mkdir of-hidden
unshare --mount bash -c "mount -t tmpfs tmpfs '$work/of-hidden' && exec slurmd -N n3 -f '$SLURM_CONF'"
configure hidden
"$cokv" cluster submit --config hidden.toml --tasks 2 --sbatch nodelist=n3 > /dev/null 2>&1
until [ -z "$(squeue --noheader)" ]; do sleep 1; done
"$cokv" cluster status of-hidden/x > status.txt
grep -q 'no log of it: does the node see' status.txt || { cat status.txt; exit 1; }
say "a node without the run's folder" "said by cokv cluster status"
kill "$(cat "$cluster/slurmd-n3.pid")"; sleep 2; slurmd -N n3 -f "$SLURM_CONF"

# A quota that is full in mid-run, and then is not.
mkdir full && mount -t tmpfs -o size=64m tmpfs full && mkdir full/of-full
sed "s#'of-@'#'$work/full/of-full'#" "$here/run.toml" > full.toml
cp -r of-calm/importance full/of-full/
"$cokv" cluster submit --config full.toml --tasks 4 --grace 60 > /dev/null 2>&1
until [ "$(cat full/of-full/x/results*.jsonl 2> /dev/null | wc -l)" -gt 8 ]; do sleep 0.2; done
dd if=/dev/zero of=full/ballast bs=64k 2> /dev/null || dd if=/dev/zero of=full/rest bs=256 2> /dev/null || true
until [ -z "$(squeue --noheader)" ]; do sleep 1; done
"$cokv" cluster status full/of-full/x > status.txt
grep -q 'full: ' status.txt && grep -q ' failed' status.txt || { cat status.txt; echo "nobody said that the disk is full" >&2; exit 1; }
rm full/ballast full/rest
"$cokv" cluster resubmit full/of-full/x > /dev/null 2>&1
finished full/of-full/x 900
same full/of-full/x
say "a full disk, then resubmit" "the same rows and table"
