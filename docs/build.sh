#!/usr/bin/env bash
# Builds the manual, build-docs/html/index.html, with doxygen. Every warning is an error, an
# undocumented public symbol among them. Installs nothing: without doxygen it fails, or with
# --if-there says that it is skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! command -v doxygen >/dev/null; then
  if [ "${1:-}" = --if-there ]; then
    echo "skipped: doxygen is not installed"
    exit 0
  fi
  echo "docs/build.sh: doxygen is not installed; install doxygen, or skip with --if-there" >&2
  exit 1
fi
mkdir -p build-docs
doxygen docs/Doxyfile
(cd docs && find . \( -name '*.svg' -o -name '*.json' \) -exec cp --parents {} ../build-docs/html \;)
echo "built build-docs/html/index.html"
