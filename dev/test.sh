#!/bin/sh
# The tests that every change runs; with --all, every test. Other arguments go to pytest: a file, a test's id, -k word.
#
# Those of the nodes and of the page need a ComfyUI. COMFYUI_PATH is its checkout ("none": without ComfyUI); without it
# the newest of ~/comfy/ComfyUI and the folders beside it that begin alike (~/comfy/ComfyUI-0.33) is taken, if there is
# one; --all runs some rows on the others too. It is run by COMFYUI_PYTHON; without that by the virtual environment in
# the checkout (.venv, venv), or by this one if it has what ComfyUI needs. The page's need chromium (CHROMIUM_PATH) too.
# One line at the end says what was skipped, and how to run it.
. "$(dirname "$0")/setup.sh"
install tests $DEMO $TESTS
exec .venv/bin/python -m pytest "$@"
