#!/bin/sh
# The golden checks over the files kept here.
cd "$(dirname "$0")/../.." || exit 1
exec "${HSSL_BIN:-build}/tests/golden" tests/golden/data
