#!/usr/bin/env bash
# Sets up the kit once (a virtual environment in .venv), then runs it:
#   ./run_all.sh           every notebook, results, the HTML book         ./run_all.sh test   all tests
#   ./run_all.sh --help    the options                                    ./run_all.sh lab    JupyterLab
# Environment variables: PYTHON, the Python to build on; IMPART_VENV, another folder than .venv.
# Without bash: python -m venv .venv, activate it, pip install -c constraints.txt -e ".[book,test]",
# then python -m impart_utils.run with the same arguments.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
VENV=${IMPART_VENV:-$ROOT/.venv}
case $VENV in /*) ;; *) VENV=$PWD/$VENV ;; esac
EXTRAS="[book,test]"   # both commands install both, so that they share one set-up
NEEDED_GB=10           # the environment takes about 7 GB, most of it torch; pip needs room to unpack

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

version_of() {
    "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null
}

# Prints the first Python of at least 3.11. python3 comes first: it is what the user has chosen.
find_python() {
    local found="" name version
    set -- python3 python3.11 python3.12 python3.13 python
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; fi   # one that is asked for is not replaced by another
    for name in "$@"; do
        version=$(version_of "$name") || continue        # not there, or a stand-in that can't run
        case $version in
            3.11.* | 3.12.* | 3.13.*) echo "$name"; return ;;
        esac
        found="$found${found:+, }$name is $version"
    done
    if [ -z "$found" ]; then found="${PYTHON:+$PYTHON was not found}"; fi
    fail "IMPART needs Python 3.11, 3.12 or 3.13, but ${found:-no Python was found}." \
         "Install one of them, or name one: PYTHON=/path/to/python3.11 ./run_all.sh"
}

# Prints the Python of the active environment where this clone is installed in it.
active_python() {
    local prefix=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    [ -n "$prefix" ] && [ -x "$prefix/bin/python" ] || return 1
    (cd / && "$prefix/bin/python" - "$ROOT") 2>/dev/null <<'PYTHON' && echo "$prefix/bin/python"
import sys
from pathlib import Path
import impart_utils
sys.exit(Path(impart_utils.__file__).resolve().parents[1] != Path(sys.argv[1]))
PYTHON
}

# What the environment was made from; where this is unchanged there is nothing to do.
setup_key() {
    "$VENV/bin/python" - "$ROOT" "$EXTRAS" <<'PYTHON'
import hashlib, sys
from pathlib import Path
root, extras = sys.argv[1:]
files = b"".join(Path(root, name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
print(hashlib.sha256(repr((root, extras, sys.version, files)).encode()).hexdigest())
PYTHON
}

make_environment() {
    local python=$1 clear="" parent free_kb have_kb
    parent=$VENV
    while [ ! -d "$parent" ]; do parent=$(dirname "$parent"); done
    free_kb=$(df -Pk "$parent" | awk 'NR == 2 { print $4 }')
    have_kb=$(du -sk "$VENV" 2>/dev/null | awk '{ print $1 }') || have_kb=0   # of a set-up broken off
    if [ $((free_kb + ${have_kb:-0})) -lt $((NEEDED_GB * 1000 * 1000)) ]; then
        fail "Setting up needs $NEEDED_GB GB of free disk, but $parent has $((free_kb / 1000 / 1000)) GB." \
             "Free some space, or put the environment elsewhere: IMPART_VENV=/path/to/folder ./run_all.sh" \
             "(README, section Install, has a smaller way without CUDA.)"
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python ($(version_of "$python")) has no complete venv module, which makes virtual environments." \
             "On Debian or Ubuntu: sudo apt install python3-venv   Elsewhere: install a full Python."
    # An environment whose Python has gone (removed, moved) can't be repaired, only emptied and made again.
    if [ -f "$VENV/pyvenv.cfg" ] && ! "$VENV/bin/python" -c '' 2>/dev/null; then clear=--clear; fi
    "$python" -m venv $clear "$VENV" || fail "Could not make a virtual environment in $VENV (see above)."
}

install_kit() {
    local log=$VENV/impart-setup.log seconds=$SECONDS
    echo "Setting up in $VENV: about 7 GB and, with a fast network, 2 to 5 minutes; only the first time."
    if ! (cd "$ROOT" && "$VENV/bin/python" -m pip install --no-input --disable-pip-version-check \
            -c constraints.txt -e ".$EXTRAS") >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        fail "" "Installing failed; the lines above are the end of $log." \
             "Where the network was the reason, the same command goes on from here."
    fi
    setup_key >"$VENV/impart-setup.key"
    echo "Set up in $((SECONDS - seconds)) s."
}

main() {
    local python base
    case " $* " in
        *" --help "* | *" -h "*)
            if [ "${1:-}" != test ] && [ "${1:-}" != lab ]; then
                base=$(find_python)
                PYTHONPATH=$ROOT PYTHONDONTWRITEBYTECODE=1 exec "$base" -m impart_utils.run --help
            fi ;;
    esac
    if ! python=$(active_python); then
        python=$VENV/bin/python
        if [ ! -f "$VENV/impart-setup.key" ] || ! "$python" -c '' 2>/dev/null; then
            base=$(find_python)
            make_environment "$base"
        fi
        [ "$(setup_key)" = "$(cat "$VENV/impart-setup.key" 2>/dev/null)" ] || install_kit
    fi
    exec "$python" -m impart_utils.run "$@"
}

main "$@"
