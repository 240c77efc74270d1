#!/usr/bin/env bash
# Builds the fuzz targets with Clang and runs each for SECONDS (60 unless told) on its own corpus in
# build-fuzz/corpus, which later runs go on with:   tests/fuzz/run.sh [SECONDS [TARGET...]]
set -euo pipefail
seconds=${1:-60}
[ $# -gt 0 ] && shift
targets=("$@")
[ $# -gt 0 ] || targets=(safetensors index config tokenizer pickle pytorch)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$root/build-fuzz

cmake -S "$root" -B "$build" -G Ninja -DCMAKE_CXX_COMPILER="${CXX:-clang++}" -DPARE_FUZZ=ON \
  -DPARE_TESTS=OFF -DPARE_EXAMPLES=OFF -DPARE_BENCHMARKS=OFF -DPARE_CUDA=OFF >/dev/null
cmake --build "$build" -j "${JOBS:-$(nproc)}"
"$build/bin/fuzz_corpus" "$build/corpus"
export UBSAN_OPTIONS=print_stacktrace=1
[ -d /dev/shm ] && export TMPDIR=/dev/shm  # files of a moment
for target in "${targets[@]}"; do
  echo "fuzzing $target for $seconds s"
  # 64 KiB of input justify no allocation of 64 MiB.
  "$build/bin/fuzz_$target" -max_total_time="$seconds" -max_len=65536 -malloc_limit_mb=64 \
    -timeout=10 -print_final_stats=1 -print_funcs=0 -verbosity=0 \
    -artifact_prefix="$build/$target-" "$build/corpus/$target"
done
