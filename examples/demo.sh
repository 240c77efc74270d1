#!/usr/bin/env bash
# Installs what is missing, builds pare with the Eigen backend alone, and compresses the shipped
# OPT model in several ways, side by side.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"
pare_eigen_alone
pare_build pare-tool
bash "$pare_root/examples/demo/table.sh" "$pare_root/$pare_folder/bin/pare"
