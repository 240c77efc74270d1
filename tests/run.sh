#!/usr/bin/env bash
# Installs what is missing, builds and runs the tests:
#   tests/run.sh [ci | full | slow | sanitize] [CTEST-ARGUMENT...]
# Without a word, some minutes: in build-ci, less optimised, the Eigen backend in float32, operations
# on the others, and what is for the GPU only where there is one.
# ci: the same with float64, what other backends do by themselves, every header, Clang's messages and
# all that nvcc compiles; .ci/run runs these.
# full: all in build/, optimised as users get them; most of an hour on two cores.
# slow: those labelled slow as well (fifteen minutes more: the perplexity table of two models).
# sanitize: in build-sanitize with the address and undefined-behaviour sanitizers, without CUDA; not
# those labelled slow and those that only compile.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"
options=(-LE slow)
case ${1:-} in
  full) shift ;;
  slow)
    options=()
    shift
    ;;
  sanitize)
    pare_folder=build-sanitize
    pare_options=(-DPARE_CUDA=OFF -DPARE_BENCHMARKS=OFF "-DPARE_SANITIZE=address;undefined")
    # Checked memory is slower, by ten times in loops over single elements.
    options=(-LE slow -E '^(compile_fail|header|consumer)' --timeout 15000)
    export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1
    export UBSAN_OPTIONS=print_stacktrace=1
    shift
    ;;
  *)
    pare_folder=build-ci
    cuda_flags="-O1 -DNDEBUG"
    [ -e /dev/nvidiactl ] || cuda_flags+=" -Xcicc=-O1 -Xptxas=-O1"  # compiled and linked, never run
    pare_options=(-DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -ftree-vectorize -DNDEBUG"
                  "-DCMAKE_CUDA_FLAGS_RELEASE=$cuda_flags" -DCMAKE_CUDA_ARCHITECTURES=90a
                  -DPARE_QUICK_TESTS=ON -DPARE_BENCHMARKS=OFF)
    if [ "${1:-}" = ci ]; then
      pare_options+=(-DPARE_CI_TESTS=ON -UPARE_CUDA)
      shift
    else
      pare_options+=(-DPARE_CI_TESTS=OFF -UPARE_CUDA)
      [ -e /dev/nvidiactl ] || pare_options+=(-DPARE_CUDA=OFF)
    fi
    ;;
esac
pare_build all
# What passed is counted at the end; failures and what was skipped are named.
# A test that hangs fails within CI's time: CTest alone would wait for it without end.
ctest --test-dir "$pare_root/$pare_folder" -j "$(nproc)" --timeout 1200 --output-on-failure \
  --no-tests=error "${options[@]}" "$@" | grep -vE '^ *Start +[0-9]+: |   Passed +[0-9.]+ sec$|^(Internal ctest|Test project) |^$'
