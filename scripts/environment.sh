# shellcheck shell=bash
# Sourced by the scripts beside it: `prepare` makes .venv hold exactly what the requirements files say.
#
# Run again, it costs one hash: a stamp in .venv tells what was installed. Two runs at once wait for each other.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv

complain() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The first Python that is new enough and can make a virtual environment, in $python. Else says what to install.
find_python() {
    local candidate too_bare=""
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.11 python3.12 python3.13 python3.14 python; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            python=$candidate
            return
        fi
        too_bare=${too_bare:-$candidate}
    done
    if [ -n "$too_bare" ]; then
        local version
        version=$("$too_bare" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        complain "Python $version is here, but it cannot make virtual environments. Run: $(install_command "$version")"
    fi
    complain "no Python 3.11 or newer is here. Run: $(install_command "")"
}

# The one command that brings a usable Python; $1 is the version that only lacks its venv module, or empty.
install_command() {
    local version=$1 sudo="" newer
    [ "$(id -u)" = 0 ] || sudo="sudo "
    if command -v apt-get >/dev/null; then
        for newer in 3.11 3.12 3.13 3.14; do
            [ -z "$version" ] && apt-cache show "python$newer-venv" >/dev/null 2>&1 && version=$newer
        done
        echo "${sudo}apt-get install -y python${version:-3.11}-venv"
    elif command -v dnf >/dev/null; then
        echo "${sudo}dnf install -y python${version:-3.11}"
    elif command -v apk >/dev/null; then
        echo "${sudo}apk add python3"
    elif command -v brew >/dev/null; then
        echo "brew install python@${version:-3.11}"
    else
        echo "your system's installer for Python 3.11 with its venv module, then this script again"
    fi
}

# What a finished .venv must have been made from. The path is in it, because an environment cannot be moved.
wanted_stamp() {
    cat "$root/pyproject.toml" "$@" | "$python" -c '
import hashlib, sys
print(sys.version.split()[0], hashlib.sha256(sys.stdin.buffer.read() + sys.argv[1].encode()).hexdigest())
' "$root"
}

usable() {
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import pip' 2>/dev/null
}

# prepare run: what raftkv needs to run. prepare dev: also what checks and tests it. Sets $python to .venv's.
prepare() {
    local purpose=$1 stamp_file=$venv/.raftkv-$1
    local files=("$root/requirements.txt" "$root/requirements-build.txt")
    [ "$purpose" = run ] || files+=("$root/requirements-dev.txt")
    if usable; then python=$venv/bin/python; else find_python; fi
    exec 9<"$root/scripts/environment.sh"
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
    if usable; then python=$venv/bin/python; fi
    if [ "$(cat "$stamp_file" 2>/dev/null)" != "$(wanted_stamp "${files[@]}")" ] || ! [ -x "$venv/bin/raftkv" ]; then
        rm -f "$stamp_file"
        install "${files[@]}"
        wanted_stamp "${files[@]}" >"$stamp_file"
    fi
    exec 9<&-
    python=$venv/bin/python
}

# install REQUIREMENTS…
install() {
    local file arguments=()
    echo "Installing into $venv (needed once, under a minute on most machines) …" >&2
    usable || "$python" -m venv --clear "$venv" || complain "could not make $venv, see above"
    python=$venv/bin/python
    for file in "$@"; do arguments+=(--requirement "$file"); done
    "$python" -m pip install --quiet --disable-pip-version-check --require-hashes "${arguments[@]}" ||
        complain "installing failed, see above; run this again and it goes on where it stopped"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable "$root" ||
        complain "installing raftkv itself failed, see above"
}
