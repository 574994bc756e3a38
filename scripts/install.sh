#!/bin/sh
# Builds lea and installs the binary, its manual pages, completions, configuration and dashboards.
#
# PREFIX      directory to install to (default /usr/local)
# SYSCONFDIR  directory of the configuration (default PREFIX/etc)
# DESTDIR     directory prepended to all paths, for packagers
#
# An existing configuration is never overwritten.
set -eu

case $# in
0) ;;
*)
    sed -n '2,/^set -eu$/{/^#/s/^# \{0,1\}//p;}' "$0" >&2
    case $1 in -h | --help) exit 0 ;; *) exit 2 ;; esac
    ;;
esac

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
prefix=${PREFIX:-/usr/local}
sysconfdir=${SYSCONFDIR:-$prefix/etc}
destdir=${DESTDIR:-}
lea=${CARGO_TARGET_DIR:-$root/target}/release/lea

# put MODE FILE TARGET
put() {
    install -d "$destdir${3%/*}"
    install -m "$1" "$2" "$destdir$3"
}

cargo build --release --locked --bin lea --manifest-path "$root/Cargo.toml"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"$lea" man "$work/man"
for shell in bash zsh fish; do
    "$lea" completions "$shell" >"$work/$shell"
done

put 755 "$lea" "$prefix/bin/lea"
for page in "$work"/man/*.[15]; do
    put 644 "$page" "$prefix/share/man/man${page##*.}/${page##*/}"
done
put 644 "$work/bash" "$prefix/share/bash-completion/completions/lea"
put 644 "$work/zsh" "$prefix/share/zsh/site-functions/_lea"
put 644 "$work/fish" "$prefix/share/fish/vendor_completions.d/lea.fish"
put 644 "$root/config/base.conf" "$prefix/share/lea/base.conf"
put 644 "$root/config/dashboards/lea.ndjson" "$prefix/share/lea/dashboards/lea.ndjson"

conf=$sysconfdir/lea/configurationFile.conf
if [ -e "$destdir$conf" ] || [ -L "$destdir$conf" ]; then
    echo "kept $destdir$conf"
else
    put 644 "$root/config/configurationFile.conf" "$conf"
fi
echo "installed $destdir$prefix/bin/lea; start it with: lea run --config $conf"
