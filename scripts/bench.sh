#!/usr/bin/env bash
# Measures throughput, CPU and memory of lea and of other receivers, in one run on this machine: three rounds, medians.
# Receivers write to a tmpfs, and one sender feeds them all. The tables replace those between the markers in
# docs/benchmarks.md. --short: tiny sizes and one round, to show that the benchmark runs; tables go to stdout only.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

document=docs/benchmarks.md
rounds=3 mib=4096 many=32 slow='1000:10 10000:1' slow_seconds=30
case "$#:${1-}" in
    0:) ;;
    1:--short) document='' rounds=1 mib=16 many=4 slow='200:5' slow_seconds=2 ;;
    *)
        echo "usage: scripts/bench.sh [--short]" >&2
        exit 2
        ;;
esac

fail() {
    echo "bench.sh: $*" >&2
    exit 1
}

for tool in socat ncat openssl ss awk; do
    command -v "$tool" >/dev/null || fail "$tool is missing (scripts/test.sh installs it)"
done
free_mib=$(df --output=avail -m /dev/shm | tail -1)
[ "$free_mib" -gt $((mib + mib / 2)) ] || fail "/dev/shm has $((free_mib)) MiB free; $((mib + mib / 2)) are needed"
cargo build --release --locked --bin lea --examples
lea=target/release/lea
examples=target/release/examples
capture=testdata/pcap/answered-call.pcap
# 10,000 streams need as many descriptors in the sender.
ulimit -n "$(ulimit -Hn)"

tmp=$(mktemp -d /dev/shm/lea-bench.XXXXXX)
results=$tmp/results
touch "$results.slow"
clean_up() {
    local file
    for file in "$tmp"/pid.*; do
        [ ! -e "$file" ] || kill -KILL "$(cat "$file")" 2>/dev/null || true
    done
    rm -rf "$tmp"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Starts receiver number $1 with the given command in the background. Files: pid.$1 has its process id, cpu.$1 its user
# and system CPU seconds after its end, log.$1 its stderr, $stdout its stdout.
start() {
    local number=$1
    shift
    {
        TIMEFORMAT='%U %S'
        # shellcheck disable=SC2016
        time sh -c 'echo $$ >"$0"; exec "$@"' "$tmp/pid.$number" "$@" 2>"$tmp/log.$number" >"${stdout:-/dev/null}"
    } 2>"$tmp/cpu.$number" &
}

# Prints the address on which receiver number $1 listens, and waits for it up to ten seconds. $2: further text of the line.
address() {
    local found='' tries
    for ((tries = 0; tries < 500; tries++)); do
        if [ -s "$tmp/pid.$1" ]; then
            found=$(ss -Hltnp | awk -v pid="pid=$(cat "$tmp/pid.$1")," 'index($0, pid) { print $4; exit }')
        fi
        if [ -n "$found" ]; then
            echo "$found"
            return
        fi
        sleep 0.02
    done
    cat "$tmp/log.$1" >&2
    fail "receiver $1 does not listen"
}

# Starts the receiver $1 for N streams: one process for all streams, or N processes for one stream each.
receiver() {
    local name=$1 streams=$2 number
    processes=1 sender=(--name none)
    case $name in
        lea-none | lea-sha256)
            start 0 "$lea" -q serve-tcp --listen 127.0.0.1:0 --output "$tmp/files" --hash "${name#lea-}"
            sender=(--name newline --manifests)
            ;;
        bare) start 0 "$examples/bare_loop" "$tmp/files" "$streams" ;;
        *)
            processes=$streams
            for ((number = 0; number < streams; number++)); do
                single "$name" "$number" "$tmp/files/$number"
            done
            ;;
    esac
}

# Starts a receiver of one stream.
single() {
    local listen=TCP-LISTEN:0,bind=127.0.0.1
    case $1 in
        socat-256k) start "$2" socat -u -b 262144 "$listen" "CREATE:$3" ;;
        socat) start "$2" socat -u "$listen" "CREATE:$3" ;;
        ncat) stdout=$3 start "$2" ncat -l --recv-only 127.0.0.1 0 ;;
        *) fail "no receiver $1" ;;
    esac
}

# Shuts lea down; the other receivers have ended with their last stream. Fails if a receiver failed.
finish() {
    case $1 in lea*) kill -TERM "$(cat "$tmp/pid.0")" ;; esac
    local job
    for job in $(jobs -p); do
        wait "$job" || { cat "$tmp"/log.* >&2; fail "$1 failed"; }
    done
}

# Appends one measurement to results: receiver, streams, bytes/s, CPU seconds per GiB.
measure() {
    local name=$1 streams=$2 number addresses=() sent cpu
    rm -rf "$tmp"/files "$tmp"/pid.* "$tmp"/cpu.*
    mkdir "$tmp/files"
    receiver "$name" "$streams"
    for ((number = 0; number < processes; number++)); do
        addresses+=(--tcp "$(address "$number")")
    done
    sent=$("$examples/send_fast" "${addresses[@]}" "${sender[@]}" --dir "$tmp/files" --capture "$capture" \
        --streams "$streams" --mib "$mib") || { cat "$tmp"/log.* >&2; fail "$name with $streams streams"; }
    finish "$name"
    cpu=$(cat "$tmp"/cpu.* | awk '{ sum += $1 + $2 } END { print sum }')
    awk -v name="$name" -v streams="$streams" -v cpu="$cpu" \
        '{ print name, streams, $1 / $2, cpu / ($1 / 2 ^ 30) }' <<<"$sent" | tee -a "$results"
}

# Measures openssl's SHA-256 over the files of the last measurement.
measure_openssl() {
    local bytes seconds
    bytes=$(stat -c %s "$tmp"/files/*.pcap | awk '{ sum += $1 } END { print sum }')
    TIMEFORMAT='%R %U %S'
    seconds=$({ time openssl dgst -sha256 "$tmp"/files/*.pcap >/dev/null; } 2>&1)
    awk -v streams="$1" -v bytes="$bytes" \
        '{ print "openssl", streams, bytes / $1, ($2 + $3) / (bytes / 2 ^ 30) }' <<<"$seconds" | tee -a "$results"
}

# Measures many slow streams. Appends to results.slow: streams, sends/s, complete files, p50, p99, highest latency, memory,
# CPU s/s.
measure_slow() {
    local streams=$1 rate=$2 report memory_kib
    rm -rf "$tmp"/files "$tmp"/pid.* "$tmp"/cpu.*
    mkdir "$tmp/files"
    start 0 "$lea" -q serve-tcp --listen 127.0.0.1:0 --output "$tmp/files"
    report=$("$examples/slow_streams" --tcp "$(address 0)" --dir "$tmp/files" --streams "$streams" \
        --rate "$rate" --seconds "$slow_seconds") || lacking=1
    echo "$report"
    memory_kib=$(awk '$1 == "VmHWM:" { print $2 }' "/proc/$(cat "$tmp/pid.0")/status")
    finish lea
    awk -v sends=$((streams * rate)) -v memory_kib="$memory_kib" -v cpu="$(cat "$tmp/cpu.0")" '
        function field(name) { return match($0, "\"" name "\":[^,}]*") ? substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3) : "?" }
        {
            split(cpu, seconds, " ")
            print field("streams"), sends, field("whole"), field("latency_p50_ms"), field("latency_p99_ms"),
                field("latency_max_ms"), memory_kib / 1024, (seconds[1] + seconds[2]) / field("seconds")
        }' <<<"$report" >>"$results.slow"
}

lacking=
load=$(cut -d' ' -f1 /proc/loadavg)
receivers='bare socat-256k socat ncat lea-none lea-sha256'
for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds"
    for streams in 1 "$many"; do
        for name in $receivers; do
            measure "$name" "$streams"
        done
        # lea-sha256 ran last, so its files are here.
        measure_openssl "$streams"
    done
    for each in $slow; do
        measure_slow "${each%:*}" "${each#*:}"
    done
done

short=()
[ -n "$document" ] || short=(--short)
scripts/bench-decode.sh "${short[@]}" >"$tmp/decode"

tables() {
    printf '%s, %s, %s cores, Linux %s, %s, lea %s (%s).\n' "$(date -u +%F)" \
        "$(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)" "$(nproc)" "$(uname -r)" \
        "$(rustc --version | cut -d' ' -f1-2)" "$("$lea" --version | cut -d' ' -f2)" \
        "$(git rev-parse --short HEAD 2>/dev/null || echo 'no commit')"
    printf '%s MiB a measurement, median of %s rounds; load of the machine before: %s.\n\n' "$mib" "$rounds" "$load"
    awk -v order="$receivers openssl" -v many="$many" -v goals="${document:+1}" -f scripts/bench-tables.awk "$results" "$results.slow"
    echo
    cat "$tmp/decode"
}

if [ -z "$document" ]; then
    tables
else
    tables >"$tmp/tables"
    awk -v tables="$tmp/tables" '
        /<!-- tables: end -->/ { inside = 0; while ((getline line < tables) > 0) print line }
        !inside
        /<!-- tables: begin -->/ { inside = 1 }' "$document" >"$tmp/document"
    cat "$tmp/document" >"$document"
    cat "$tmp/tables"
fi
[ -z "$lacking" ] || fail "slow streams are lacking bytes (see the table)"

echo
scripts/bench-kafka.sh "$@"

echo
scripts/bench-events.sh "$@"

echo
scripts/bench-cluster.sh "$@"

echo
scripts/bench-billing.sh "$@"
