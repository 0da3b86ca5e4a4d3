#!/usr/bin/env bash
# Installs what the verifiers need: Python packages in FOLDER/venv, and FOLDER/verify-go.
# usage: install.sh FOLDER     (README.md says which Debian packages must be there)
set -euo pipefail

if (($# != 1)); then
    echo "usage: install.sh FOLDER" >&2
    exit 2
fi
source "$(dirname "$0")/../../.ci/needs"
needs go "$install_go" python3 'apt-get install python3-venv'
mkdir -p "$1"
folder=$(realpath "$1")
cd "$(dirname "$0")"

go build -C go -o "$folder/verify-go" .

# The copy says that the installation was finished, and of what.
if ! cmp -s requirements.txt "$folder/venv/requirements.txt"; then
    python3 -m venv --clear "$folder/venv"
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --requirement requirements.txt
    cp requirements.txt "$folder/venv/"
fi
