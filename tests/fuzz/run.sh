#!/usr/bin/env bash
# Runs the fuzz targets for SECONDS each (60 unless told), JOBS processes at a time (as many as
# there are cores), from the committed corpus and what earlier runs left in FUZZ_OUT
# (build-fuzz/corpus):
#   tests/fuzz/run.sh [SECONDS [TARGET...]]
# Builds them with Clang first; PARE_FUZZ_BUILT=1 takes those in FUZZ_BIN (build-fuzz/bin) as they
# are. With more jobs than targets several share a corpus. Prints executions, coverage, seconds and
# findings of each, which stay in FUZZ_OUT as TARGET-crash-*; exits 1 when there are any.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
seconds=${1:-60}
[ $# -gt 0 ] && shift
all=(safetensors index config tokenizer pickle pytorch packed report sensitivity)
targets=("$@")
[ $# -gt 0 ] || targets=("${all[@]}")
jobs=${JOBS:-$(nproc)}
bin=${FUZZ_BIN:-$here/../../build-fuzz/bin}
out=${FUZZ_OUT:-$here/../../build-fuzz/corpus}

if [ "${PARE_FUZZ_BUILT:-0}" != 1 ]; then
  root=$(cd "$here/../.." && pwd)
  launcher=()
  command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  cmake -S "$root" -B "$root/build-fuzz" -G Ninja -DCMAKE_CXX_COMPILER="${CXX:-clang++}" \
    -DPARE_FUZZ=ON -DPARE_TESTS=OFF -DPARE_EXAMPLES=OFF -DPARE_BENCHMARKS=OFF -DPARE_CUDA=OFF \
    "${launcher[@]}" >/dev/null
  cmake --build "$root/build-fuzz" -j "$jobs"
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
[ ! -x "$bin/fuzz_corpus" ] || "$bin/fuzz_corpus" "$out"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -d /dev/shm ] && [ -w /dev/shm ]; then  # files of a moment
  export TMPDIR=$(mktemp -d -p /dev/shm)
  trap 'rm -rf "$work" "$TMPDIR"' EXIT
fi
export UBSAN_OPTIONS=print_stacktrace=1

fuzz() {  # fuzz TARGET NUMBER: one process; its log is the answer
  local target=$1 dictionary=json
  case $target in
    pickle | pytorch) dictionary=pickle ;;
    packed | tokenizer) dictionary=$target ;;
  esac
  local profile=$(($2 % 2))  # every second process also compares values
  # 64 KiB of input justify no allocation of 64 MiB; fuzz.hpp has the tight bound.
  "$bin/fuzz_$target" -max_total_time="$seconds" -max_len=65536 -malloc_limit_mb=64 -timeout=10 \
    -rss_limit_mb=2048 -print_final_stats=1 -print_funcs=0 -use_value_profile="$profile" \
    -dict="$here/dictionaries/$dictionary.dict" -artifact_prefix="$out/$target-" \
    "$out/$target" $([ ! -d "$here/corpus/$target" ] || echo "$here/corpus/$target") \
    >"$work/$target.$2" 2>&1 || echo "exit $?" >>"$work/$target.$2"
}

per_target=$((jobs / ${#targets[@]}))
[ "$per_target" -ge 1 ] || per_target=1
before=$(date +%s)
touch "$work/start"
for ((number = 0; number < per_target; ++number)); do
  for target in "${targets[@]}"; do
    mkdir -p "$out/$target"
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
    fuzz "$target" "$number" &
  done
done
wait
findings=0
for target in "${targets[@]}"; do
  cat "$work/$target".* >"$out/$target.log"
  executions=$(awk '/stat::number_of_executed_units/ { n += $2 } END { print n + 0 }' \
    "$out/$target.log")
  coverage=$(awk 'match($0, /cov: [0-9]+/) { n = substr($0, RSTART + 5, RLENGTH - 5) + 0
                  if (n > m) m = n } END { print m + 0 }' "$out/$target.log")
  files=$(find "$out" -maxdepth 1 -name "$target-*" -newer "$work/start" | wc -l)
  failed=$(grep -c '^exit ' "$out/$target.log" || true)
  [ "$files" -ge "$failed" ] || files=$failed  # a process may end without leaving its input
  findings=$((findings + files))
  printf '%-12s %10d executions, coverage %5d, %5d s, corpus %5d files, %d findings\n' "$target" \
    "$executions" "$coverage" $((seconds * per_target)) \
    "$(find "$out/$target" -type f | wc -l)" "$files"
  [ "$files" = 0 ] ||
    grep -A 30 -m 1 -E 'ERROR: |runtime error|the input justifies' "$out/$target.log" || true
done
echo "wall time $(($(date +%s) - before)) s"
[ "$findings" = 0 ]
