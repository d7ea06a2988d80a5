#!/bin/sh
# All tests; those of tests/host need a ComfyUI checkout at COMFYUI_PATH or ~/comfy/ComfyUI. Arguments go to pytest.
. "$(dirname "$0")/setup.sh"
exec python -m pytest "$@"
