#!/usr/bin/env bash
# Measures the most important parts on a GPU, in about a quarter of an hour.
#
#     experiments/benchmarks/on_gpu.sh OUT [MINUTES] [TORCH_PYTHON]
#
# OUT gets the record of each part as soon as it ends. The minutes that are left go to the decisive
# rows of Table 1. The same command again skips parts that ended and resumes the sweep.
# QUICK=1 measures miniatures, on any machine, and shows only that everything runs.
set -u
usage="usage: $0 OUT [MINUTES] [TORCH_PYTHON]"
mkdir -p "${1:?$usage}" && out=$(cd "$1" && pwd) || exit
ends=$(($(date +%s) + 60 * ${2:-14}))
if [ -n "${3:-}" ] && ! command -v "$3" >/dev/null; then
  echo "$0: there is no program $3" >&2
  exit 1
fi
torch=${3:+$(command -v "$3" | xargs realpath --no-symlinks)}
cd "$(dirname "$0")/../.." || exit
if [ -z "${QUICK:-}" ]; then
  python3 -c 'import jax; jax.devices("gpu")' || exit
fi
failed=0

measure() {
  left=$((ends - $(date +%s) - 5))
  [ "$left" -gt 0 ] || return
  if ! timeout --signal=INT --kill-after=30 "$left" "$@"; then
    echo "failed, or stopped by the clock: $*" >&2
    failed=1
  fi
}

for part in device_agreement wide_resnet many_lanes; do
  measure python3 -m experiments.benchmarks --out="$out/benchmarks" --parts="$part" --rounds=1 \
    ${torch:+--torch_python="$torch"} ${QUICK:+--quick}
done
scale=${QUICK:+test}
measure python3 -m launch.sweep "experiments/smith2020/table1.py:${scale:-gpu}" --workdir="$out/table1"
# Of a sweep that the clock has stopped, too.
[ ! -d "$out/table1" ] || python3 -m launch.report --workdir="$out/table1"
exit "$failed"
