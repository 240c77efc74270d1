#!/usr/bin/env bash
# Builds the manual, build-docs/html/index.html: doxygen reads the headers, Sphinx (with MyST,
# Breathe and Furo) makes the pages. Every warning is an error, an undocumented public symbol and a
# broken link among them. Installs nothing: where a package is missing it names all that it needs
# and fails, or with --if-there says that it is skipped; --can only asks whether all is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
packages=(doxygen python3-sphinx python3-myst-parser python3-breathe furo libjs-mathjax)

missing() {  # what of it is not there
  command -v doxygen >/dev/null || echo "doxygen"
  if command -v sphinx-build >/dev/null; then
    local interpreter module
    # The Python that sphinx-build runs on, which need not be the first in PATH.
    interpreter=$(sed -n '1s/^#! *//p' "$(command -v sphinx-build)")
    for module in myst_parser breathe furo; do
      $interpreter -c "import $module" 2>/dev/null || echo "$module"
    done
  else
    echo "sphinx-build"
  fi
}

lacking=$(missing | xargs)
if [ "${1:-}" = --can ]; then
  [ -z "$lacking" ]
  exit
fi
if [ -n "$lacking" ]; then
  if [ "${1:-}" = --if-there ]; then
    echo "skipped: not installed: $lacking"
    exit 0
  fi
  echo "docs/build.sh: not installed: $lacking; on Debian and Ubuntu:" >&2
  echo "  apt-get install --no-install-recommends ${packages[*]}" >&2
  exit 1
fi
rm -rf build-docs/xml build-docs/html
mkdir -p build-docs
doxygen docs/Doxyfile
python3 docs/manual.py
sphinx-build -q -W --keep-going -b html -c docs build-docs/pages build-docs/html
echo '<meta http-equiv="refresh" content="0; url=docs/README.html">' >build-docs/html/index.html
python3 docs/check_links.py build-docs/html
echo "built build-docs/html/index.html"
