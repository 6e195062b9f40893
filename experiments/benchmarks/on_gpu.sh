#!/usr/bin/env bash
# What to measure first on a GPU, in about a quarter of an hour, the most important part first.
#
#     experiments/benchmarks/on_gpu.sh OUT [MINUTES] [TORCH_PYTHON]
#
# OUT gets the records of each part as soon as it ends, and the decisive rows of Table 1 with the
# minutes that are left. The same command again goes on where it was stopped. QUICK=1 measures
# miniatures, on any machine, and shows only that everything runs.
set -u
cd "$(dirname "$0")/../.."
out=$(mkdir -p "${1:?the directory for the results}" && cd "$1" && pwd)
ends=$(($(date +%s) + 60 * ${2:-14}))
torch=${3:-}

measure() {
  left=$((ends - $(date +%s) - 5))
  [ "$left" -gt 0 ] || return
  timeout --signal=INT --kill-after=30 "$left" "$@" || echo "$* ended with exit code $?"
}

for part in device_agreement wide_resnet many_lanes; do
  measure python3 -m experiments.benchmarks --out="$out/benchmarks" --parts="$part" --rounds=1 \
    ${torch:+--torch_python="$torch"} ${QUICK:+--quick}
done
scale=${QUICK:+test}
measure python3 -m launch.sweep "experiments/smith2020/table1.py:${scale:-gpu}" --workdir="$out/table1"
# Of a sweep that the clock has stopped, too.
python3 -m launch.report --workdir="$out/table1"
