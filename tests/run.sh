#!/usr/bin/env bash
# Installs what is missing, builds and runs the tests:
#   tests/run.sh [slow | quick | sanitize] [CTEST-ARGUMENT...]
# slow: those labelled slow as well (about fifteen minutes: the perplexity table of two models).
# quick: in build-ci, less optimised, without what every backend runs through the same algorithms.
# sanitize: in build-sanitize with the address and undefined-behaviour sanitizers, without CUDA; not
# those labelled slow and those that only compile.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"
options=(-LE slow)
mode=${1:-}
case $mode in
  slow) options=() ;;
  quick)
    pare_folder=build-ci
    pare_options=(-DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG"
                  "-DCMAKE_CUDA_FLAGS_RELEASE=-O1 -DNDEBUG"
                  -DPARE_QUICK_TESTS=ON -DPARE_BENCHMARKS=OFF)
    ;;
  sanitize)
    pare_folder=build-sanitize
    pare_options=(-DPARE_CUDA=OFF -DPARE_BENCHMARKS=OFF "-DPARE_SANITIZE=address;undefined")
    # Checked memory is slower, by ten times in loops over single elements.
    options=(-LE slow -E '^(compile_fail|header|consumer)' --timeout 15000)
    export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1
    export UBSAN_OPTIONS=print_stacktrace=1
    ;;
  *) mode= ;;
esac
[ -z "$mode" ] || shift
pare_build all
ctest --test-dir "$pare_root/$pare_folder" -j "$(nproc)" --output-on-failure --no-tests=error \
  "${options[@]}" "$@"
