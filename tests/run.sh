#!/usr/bin/env bash
# Installs what is missing, builds and runs the tests. "tests/run.sh slow" runs those labelled
# slow as well (about fifteen minutes: the perplexity table of two models).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"
pare_build all
exclude=(-LE slow)
[ "${1:-}" = slow ] && exclude=()
ctest --test-dir "$pare_root/build" -j "$(nproc)" --output-on-failure "${exclude[@]}"
