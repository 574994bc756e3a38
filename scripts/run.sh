#!/bin/sh
# Builds lea if needed and starts everything that config/configurationFile.conf enables. Arguments go to `lea run`.
set -eu
cd "$(dirname "$0")/.."
cargo build --release --locked --bin lea
# exec replaces the shell, so signals reach lea.
exec target/release/lea run "$@"
