#!/bin/sh
# Writes config/configurationFile.conf of this checkout from any working directory. The flags are those of
# `lea configure` (see its --help); command lines of the original script work. --config and --template can be overridden.
# Keys of other programs in the template are kept, with a warning.
# Uses lea from PATH, else from target/release, else builds it.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
built=${CARGO_TARGET_DIR:-$root/target}/release/lea

if command -v lea >/dev/null 2>&1; then
    lea=lea
else
    if [ ! -x "$built" ]; then
        cargo build --release --locked --bin lea --manifest-path "$root/Cargo.toml"
    fi
    lea=$built
fi

set -- --config "$root/config/configurationFile.conf" "$@"
if [ -e "$root/config/base.conf" ]; then
    set -- --template "$root/config/base.conf" "$@"
fi
exec "$lea" configure --lenient "$@"
