#!/usr/bin/env bash
# Installs what the tests need and runs all checks: format, lints, documentation, scripts, tests, and short benchmarks.
# --long: the full form of each scenario, cargo deny, and the full benchmarks.
# No check is skipped: a missing tool that cannot be installed is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

usage() {
    echo "usage: scripts/test.sh [--long]" >&2
    exit 2
}

long=
case "$#:${1-}" in
    0:) ;;
    1:--long) long=1 ;;
    *) usage ;;
esac

step() {
    now="$*"
    printf '\n== %s\n' "$now"
}
now=start
ended() {
    local status=$?
    [ "$status" = 0 ] || echo "test.sh: FAILED at: $now (exit $status, ${SECONDS} s)" >&2
}
trap ended EXIT

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# One tool per line, with its Debian package.
tools='
bzip2 bzip2
c++ g++
cc gcc
curl curl
dumpcap wireshark-common
flock util-linux
go golang-go
ip iproute2
java default-jdk-headless
javac default-jdk-headless
jq jq
kcat kcat
logger bsdutils
make make
man man-db
mvn maven
ncat ncat
node nodejs
npm npm
nsenter util-linux
openssl openssl
perl perl
ps procps
python3 python3
rabbitmqctl rabbitmq-server
rsyslogd rsyslog
shellcheck shellcheck
sipp sip-tester
setpriv util-linux
socat socat
strace strace
tcpdump tcpdump
tshark tshark
unshare util-linux
unzip unzip
xz xz-utils
'

missing_packages() {
    while read -r tool package; do
        [ -z "$tool" ] || command -v "$tool" >/dev/null || echo "$package"
    done <<<"$tools" | sort -u
    # Packages without a tool: rsyslog's Elasticsearch module, and libraries for the programs of scripts/debian-unpacked.
    for package in rsyslog-elasticsearch libivykis0 libnet1 libpcre3 libwrap0 libcurl4 libjson-c5 libjansson4; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed' || echo "$package"
    done
    # Debian's Python cannot create virtual environments without this package.
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

step tools
mapfile -t packages < <(missing_packages)
if [ "${#packages[@]}" != 0 ]; then
    echo "installing ${packages[*]}"
    as_root apt-get -q update
    # The installation does not change who may run dumpcap.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${packages[@]}"
    hash -r
    mapfile -t packages < <(missing_packages)
    if [ "${#packages[@]}" != 0 ]; then
        echo "test.sh: still missing after the installation: ${packages[*]}" >&2
        exit 1
    fi
fi
if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
    rustup component add rustfmt clippy
fi

step format
cargo fmt --all --check

step lints
cargo clippy --locked --all-targets -- -D warnings

step documentation
# With private items, because developers read it.
RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --locked --no-deps --document-private-items

step scripts
shellcheck scripts/*.sh scripts/kafka-broker scripts/kafka-python scripts/kafkajs scripts/pika scripts/python-graypy scripts/python-logstash scripts/python-search scripts/rabbitmq scripts/search-clients scripts/search-node scripts/debian-unpacked .ci/run

step "tests${long:+, the long form}"
if [ -n "$long" ]; then
    export LEA_TEST_LONG=1
fi
runner=()
if [ "$(id -u)" != 0 ]; then
    # Packet capture and network namespaces need root.
    runner=(--config "target.'cfg(unix)'.runner=['sudo','-n','--preserve-env']")
fi
cargo test --locked "${runner[@]}"

if [ -n "$long" ]; then
    # This build compiles OpenSSL. A separate target directory keeps the two builds from invalidating each other.
    step 'TLS to brokers'
    CARGO_TARGET_DIR=target/kafka-tls cargo test --locked "${runner[@]}" --features kafka-tls -- connect security
    step dependencies
    command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
    cargo deny --locked check bans licenses sources
    step benchmarks
    scripts/bench.sh
else
    step 'short benchmarks'
    scripts/bench.sh --short
fi

echo
echo "test.sh: all passed${long:+ in the long form} (${SECONDS} s)"
