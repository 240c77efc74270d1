#!/usr/bin/env bash
# Adds to the committed corpus what runs found that covers more code than it, in small files:
#   tests/fuzz/keep.sh [FOUND]     FOUND/TARGET/* (build-fuzz/corpus); the targets must be built
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
found=${1:-$here/../../build-fuzz/corpus}
bin=${FUZZ_BIN:-$here/../../build-fuzz/bin}
for folder in "$here"/corpus/*/; do
  target=$(basename "$folder")
  [ -d "$found/$target" ] || continue
  # Edges only, not how often each was taken: an input for each would be thousands.
  "$bin/fuzz_$target" -merge=1 -set_cover_merge=1 -use_counters=0 -max_len=8192 -verbosity=0 \
    "$folder" "$found/$target" 2>/dev/null
  printf '%-12s %4d files, %s\n' "$target" "$(find "$folder" -type f | wc -l)" \
    "$(du -sh --apparent-size "$folder" | cut -f 1)"
done
