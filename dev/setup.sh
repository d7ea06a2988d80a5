# Sourced by demo.sh, test.sh and .ci/run: makes .venv beside this folder, puts it on PATH, installs what is asked for.
set -eu
cd "$(dirname "$0")/.."

DEMO='torch==2.13.0 numpy safetensors matplotlib psutil nvidia-ml-py'
TESTS='pytest hypothesis bandit diffusers transformers playwright ray>=2.52 ruff>=0.17,<0.18'

# install NAME PACKAGE...: once for each list of packages. The list is noted when all is done, so that what was
# interrupted is done again.
install() {
    noted=.venv/installed-$1
    shift
    if [ ! -x .venv/bin/python ] || [ "$(cat "$noted" 2>/dev/null)" != "$*" ]; then
        if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
            python3 -m venv --clear .venv
        fi
        .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"
        echo "$*" >"$noted"
    fi
}
