#!/bin/sh
# One image on one process and on two, with a small trained model. Arguments go to the demo.
. "$(dirname "$0")/setup.sh"
install demo $DEMO
exec .venv/bin/python -m hybridiff_core demo "$@"
