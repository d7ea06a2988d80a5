#!/bin/sh
# One image on one process and on two, with a small trained model. Arguments go to the demo.
. "$(dirname "$0")/setup.sh"
exec python -m hybridiff_core demo "$@"
