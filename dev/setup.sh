# Sourced by demo.sh, test.sh and .ci/run: makes .venv beside this folder, puts it on PATH, installs what is asked for.
set -eu
cd "$(dirname "$0")/.."

DEMO='torch==2.13.0 numpy safetensors pillow psutil'
TESTS='nvidia-ml-py matplotlib pytest hypothesis bandit diffusers transformers playwright ray>=2.52 ruff>=0.17,<0.18'

# install NAME PACKAGE...: once for each list of packages. The list is noted when all is done, so that what was
# interrupted is done again.
install() {
    what=$1
    noted=.venv/installed-$what
    shift
    if [ ! -x .venv/bin/python ] || [ "$(cat "$noted" 2>/dev/null)" != "$*" ]; then
        if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
            if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
                echo "python3 is $(python3 --version 2>&1); install Python 3.10 or newer" >&2
                exit 1
            fi
            python3 -m venv --clear .venv
        fi
        echo "Setting up .venv for the $what (downloads PyTorch once, which takes some minutes)" >&2
        .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"
        echo "$*" >"$noted"
    fi
}
