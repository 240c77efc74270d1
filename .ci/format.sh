#!/usr/bin/env bash
# Fails when clang-format 14, whose layout the code has, would change a line; other versions differ.
#   .ci/format.sh [--fix]    (--fix reformats everything)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
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
"$format" --dry-run --Werror "${files[@]}"
