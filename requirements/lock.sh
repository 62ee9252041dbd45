#!/bin/sh
# Renews the locks: exact versions with the hashes of every published file, and no address of any index.
# What is locked stays at its version unless UPGRADE=1 is set, so that a new dependency brings only itself.
set -eu
bin=$1
"$bin/python" -m pip install --quiet uv
lock() {
    "$bin/python" -m uv pip compile --quiet ${UPGRADE:+--upgrade} --universal --generate-hashes --no-emit-index-url \
        --no-emit-find-links --no-header --no-annotate --python-version 3.11 "$@"
}
lock requirements/build.in -o requirements/build.txt
lock pyproject.toml --extra server --extra dev -o requirements/dev.txt
# The smaller locks hold the very versions of the largest.
grep -oE '^[a-z0-9._-]+==[^ ;]+' requirements/dev.txt > requirements/.pins
lock pyproject.toml -c requirements/.pins -o requirements/agent.txt
lock pyproject.toml --extra server -c requirements/.pins -o requirements/server.txt
rm requirements/.pins
