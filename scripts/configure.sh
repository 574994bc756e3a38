#!/bin/sh
# Writes config/configurationFile.conf of this checkout, from any current folder; the flags are those of
# `lea configure` (see its --help), old command lines included. A --config or --template of the caller goes before.
# Finds lea in PATH, else in target/release, else builds it.
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
exec "$lea" configure "$@"
