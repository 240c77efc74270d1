#!/usr/bin/env bash
# Installs what is missing, builds and runs the tests. "tests/run.sh slow" runs those labelled
# slow as well (about fifteen minutes: the perplexity table of two models). "tests/run.sh sanitize"
# builds in build-sanitize with the address and undefined-behaviour sanitizers, without CUDA, and
# runs all but those labelled slow and those that only compile.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"
options=(-LE slow)
case ${1:-} in
  slow) options=() ;;
  sanitize)
    pare_folder=build-sanitize
    pare_options=(-DPARE_CUDA=OFF -DPARE_BENCHMARKS=OFF "-DPARE_SANITIZE=address;undefined")
    # Checked memory is slower, by ten times in loops over single elements.
    options=(-LE slow -E '^compile_fail' --timeout 15000)
    export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1
    export UBSAN_OPTIONS=print_stacktrace=1
    ;;
esac
pare_build all
ctest --test-dir "$pare_root/$pare_folder" -j "$(nproc)" --output-on-failure "${options[@]}"
