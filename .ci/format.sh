#!/usr/bin/env bash
# Counts the lines that clang-format 14 would change, and fails when they are more than `allowed`.
# The code was written by hand before .clang-format: lower the number when it falls.
#   .ci/format.sh [--fix]    (--fix reformats everything)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
allowed=1500
format=$(command -v clang-format-14 || command -v clang-format)
mapfile -t files < <(git ls-files '*.hpp' '*.cpp' '*.cuh' '*.cu')
if [ "${1:-}" = --fix ]; then
  "$format" -i "${files[@]}"
  exit 0
fi
if grep -nP '\t| +$' "${files[@]}"; then
  echo "tabs or blanks at the end of these lines" >&2
  exit 1
fi
changed=$(for file in "${files[@]}"; do
  "$format" "$file" | diff "$file" - | grep '^<' || true
done | wc -l)
echo "$format would change $changed lines of ${#files[@]} files, allowed are $allowed"
[ "$changed" -le "$allowed" ]
