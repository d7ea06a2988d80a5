# Sourced by demo.sh and test.sh: makes .venv beside this folder on first use, and puts it on PATH.
set -eu
cd "$(dirname "$0")/.."
if [ ! -x .venv/bin/python ]; then
    python3 -m venv .venv
fi
. .venv/bin/activate
if ! python -c 'import torch, pytest, pynvml, bandit, diffusers, matplotlib, playwright' 2>/dev/null; then
    python -m pip install --quiet --disable-pip-version-check \
        'torch==2.13.0' numpy nvidia-ml-py pytest hypothesis psutil safetensors matplotlib bandit diffusers transformers \
        playwright 'ruff==0.17.*'
fi
