#!/bin/sh
# The tests that every change runs; with --all, every test. Other arguments go to pytest: a file, a test's id, -k word.
#
# Those of the nodes and of the page need a ComfyUI. COMFYUI_PATH is its checkout; without it ~/comfy/ComfyUI is taken
# if it is there ("none": without ComfyUI). It is run by COMFYUI_PYTHON; without that by the virtual environment in the
# checkout (.venv, venv), or by this one if it has what ComfyUI needs. The page's need chromium (CHROMIUM_PATH) too.
# One line at the end says what was skipped, and how to run it.
. "$(dirname "$0")/setup.sh"
install tests $DEMO $TESTS
exec .venv/bin/python -m pytest "$@"
