#!/usr/bin/env bash
# Measures events: `lea serve-events` with users and OpenSearch over HTTP, and the syslog listeners of lea, rsyslog and
# syslog-ng. All run on this machine: three rounds, medians. The tables replace those between the markers in
# docs/benchmarks.md.
#
# usage: scripts/bench-events.sh [--short]       all parts; --short: tiny sizes, one round, the tables to stdout only
#        scripts/bench-events.sh PART            one of them: small, large-lea, large-opensearch, syslog, tables
#
# Each part writes its figures to target/bench-events, and `tables` reads them. The stores are in ${TMPDIR:-/tmp}, which
# should be on a disk, because durable writes are measured.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

version=opensearch-3.8.0 heap=1g
document=docs/benchmarks.md rounds=3 seconds=5
small=200000 large=5000000 lines=200000 connections=2 wanted_mib=10000
parts='small large-lea large-opensearch syslog'
case "$#:${1-}" in
    0:) ;;
    1:--short) document='' rounds=1 seconds=1 small=4000 lines=4000 wanted_mib=1000 parts='small syslog' ;;
    1:small | 1:large-lea | 1:large-opensearch | 1:syslog | 1:tables) parts=$1 ;;
    *)
        sed -n 's/^# \(usage:\|      \) /\1 /p' "$0" >&2
        exit 2
        ;;
esac

fail() {
    echo "bench-events.sh: $*" >&2
    exit 1
}

for tool in curl java jq mvn unzip rsyslogd awk; do
    command -v "$tool" >/dev/null || fail "$tool is missing (scripts/test.sh installs it)"
done
free_mib=$(df --output=avail -m "${TMPDIR:-/tmp}" | tail -1)
[ "$free_mib" -gt "$wanted_mib" ] || fail "${TMPDIR:-/tmp} has $((free_mib)) MiB free; $wanted_mib are needed"
[ -n "${LEA-}" ] || cargo build --release --locked --bin lea --example events_client
lea=${LEA:-target/release/lea}
client=target/release/examples/events_client
syslog_ng=$(scripts/debian-unpacked syslog-ng)
figures=target/bench-events${document:+/full}
mkdir -p "$figures"

tmp=$(mktemp -d "${TMPDIR:-/tmp}/lea-bench.XXXXXX")
node='' pids=()
clean_up() {
    local pid
    [ -z "$node" ] || scripts/search-node stop "$node"
    for pid in "${pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
    done
    rm -rf "$tmp"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
# OpenSearch runs as nobody if root starts it.
chmod a+x "$tmp"

# Records a figure of this part: server, name, value.
note() { echo "$*" | tee -a "$figures/$part"; }

# Prints the value after $1= in the client's output.
value() { sed -n "s/.*\b$1=\([^ ]*\).*/\1/p"; }

memory_mib() { awk '$1 == "VmHWM:" { printf "%.0f\n", $2 / 1024 }' "/proc/$1/status"; }

# Waits until file $2 contains $1.
wait_for() {
    local tries
    for ((tries = 0; tries < 1500; tries++)); do
        if grep -q "$1" "$2" 2>/dev/null; then return; fi
        sleep 0.02
    done
    cat "$2" >&2
    fail "waited in vain for $1"
}

start_lea() {
    export LEA_BENCH_USER=proxy:secret
    if [ ! -e "$tmp/lea.json" ]; then
        jq -n --arg hash "$(echo secret | "$lea" events hash-password)" \
            '{parameters: {events: {users: {proxy: $hash}}}}' >"$tmp/lea.json"
    fi
    # The log of an earlier process must not be read.
    rm -f "$tmp/lea.log"
    "$lea" serve-events --config "$tmp/lea.json" --http 0 --syslog tcp:127.0.0.1:0 --output "$1" 2>"$tmp/lea.log" &
    lea_pid=$!
    pids+=("$lea_pid")
    wait_for 'listener=http' "$tmp/lea.log"
    lea_http=$(sed -n 's/.*listening addr=\([^ ]*\) listener=http.*/\1/p' "$tmp/lea.log")
    lea_syslog=$(sed -n 's/.*listening addr=\([^ ]*\) listener=syslog.*/\1/p' "$tmp/lea.log")
}

# Stops lea and records its peak memory.
stop_lea() {
    note lea memory_mib "$(memory_mib "$lea_pid")"
    kill -TERM "$lea_pid"
    wait "$lea_pid" || { cat "$tmp/lea.log" >&2; fail 'lea failed'; }
}

# Records the disk space of the store after lea has ended.
note_lea_disk() { note lea bytes_an_event "$(stat -c %s "$1"/.lea/events.db* | awk -v events="$2" '{ sum += $1 } END { print sum / events }')"; }

start_opensearch() {
    local port tries
    unset LEA_BENCH_USER
    for ((tries = 0; tries < 10; tries++)); do
        port=$((10000 + RANDOM % 20000))
        if SEARCH_NODE_OWNER=$$ SEARCH_NODE_HEAP=$heap scripts/search-node start "$version" "$port" "$tmp/node"; then
            node=$tmp/node
            opensearch_http=127.0.0.1:$port
            request "http://$opensearch_http/_nodes/jvm" | jq -r '.nodes[].jvm.version' >"$figures/java"
            return
        fi
    done
    fail 'no OpenSearch'
}

stop_opensearch() {
    note opensearch memory_mib "$(memory_mib "$(cat "$node/pid")")"
    scripts/search-node stop "$node"
    node=''
}

request() { curl --silent --show-error --fail-with-body ${LEA_BENCH_USER:+--user "$LEA_BENCH_USER"} "$@" || fail "request failed: $*: $(cat "$tmp/answer" 2>/dev/null)"; }

# Creates an empty index on the server at $1: one shard, no replicas, and dynamic mapping of all fields except the time.
make_index() {
    request -X PUT "http://$1/opensips" -H 'Content-Type: application/json' -o "$tmp/answer" -d '{
        "settings": { "number_of_shards": 1, "number_of_replicas": 0 },
        "mappings": { "properties": { "time": { "type": "date", "format": "yyyy-MM-dd HH:mm:ssZ" } } } }'
}

# Writes $3 events into the index of server $1 at $2, in bulk requests of $4.
fill() {
    local said
    said=$("$client" fill "$2" "$3" "$4" "$connections")
    event_bytes=$(value event_bytes <<<"$said")
    note "$1" events_per_s "$(value events_per_s <<<"$said")"
}

count() {
    local said
    said=$("$client" count "$2" "$seconds")
    note "$1" count_p50_us "$(value p50_us <<<"$said")"
    note "$1" count_p99_us "$(value p99_us <<<"$said")"
}

# Measures a histogram by day of all $3 events. OpenSearch's request cache is off.
histogram() {
    local said target='/opensips/_search'
    [ "$1" = lea ] || target+='?request_cache=false'
    said=$("$client" search "$2" "$target" \
        '{"size":0,"aggs":{"days":{"date_histogram":{"field":"time","fixed_interval":"1d"}}}}' 20)
    [ "$(value in_buckets <<<"$said")" = "$3" ] || fail "the histogram of $1 has not all events: $said"
    note "$1" histogram_ms "$(awk -v us="$(value p50_us <<<"$said")" 'BEGIN { print us / 1000 }')"
    note "$1" first_histogram_ms "$(awk -v us="$(value first_us <<<"$said")" 'BEGIN { print us / 1000 }')"
}

ask() {
    local round
    for ((round = 0; round < rounds; round++)); do
        count "$1" "$2"
        histogram "$1" "$2" "$3"
    done
}

# Prints the size of the index files. The node's own statistics are some seconds old.
opensearch_bytes() { find "$node/data" -path '*/index/*' -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }'; }

# Records the disk space for $1 events after a flush, and after a merge into one segment.
note_opensearch_disk() {
    request -X POST "http://$opensearch_http/opensips/_flush?wait_if_ongoing=true" -o "$tmp/answer"
    note opensearch bytes_an_event "$(($(opensearch_bytes) / $1))"
    request -X POST "http://$opensearch_http/opensips/_forcemerge?max_num_segments=1" -o "$tmp/answer"
    # The merged segments are deleted after these two requests.
    request -X POST "http://$opensearch_http/opensips/_refresh" -o "$tmp/answer"
    request -X POST "http://$opensearch_http/opensips/_flush?wait_if_ongoing=true&force=true" -o "$tmp/answer"
    note opensearch merged_bytes_an_event "$(($(opensearch_bytes) / $1))"
}

small() {
    local round
    note lea events "$small"
    start_opensearch
    # Warm-up: the JVM compiles its code.
    make_index "$opensearch_http"
    for ((round = 0; round < rounds; round++)); do
        "$client" fill "$opensearch_http" "$small" 1000 "$connections" >"$tmp/warm"
    done
    for ((round = 0; round < rounds; round++)); do
        rm -rf "$tmp/out"
        start_lea "$tmp/out"
        make_index "$lea_http"
        fill lea "$lea_http" "$small" 1000
        unset LEA_BENCH_USER
        request -X DELETE "http://$opensearch_http/opensips" -o "$tmp/answer"
        make_index "$opensearch_http"
        fill opensearch "$opensearch_http" "$small" 1000
        note_opensearch_disk "$small"
        request -X POST "http://$opensearch_http/opensips/_refresh" -o "$tmp/answer"
        count opensearch "$opensearch_http"
        export LEA_BENCH_USER=proxy:secret
        count lea "$lea_http"
        stop_lea
        note_lea_disk "$tmp/out" "$small"
        unset LEA_BENCH_USER
    done
    note lea event_bytes "$event_bytes"
    stop_opensearch
}

large-lea() {
    rm -rf "$tmp/out"
    start_lea "$tmp/out"
    make_index "$lea_http"
    fill lea "$lea_http" "$large" 5000
    ask lea "$lea_http" "$large"
    stop_lea
    note_lea_disk "$tmp/out" "$large"
}

large-opensearch() {
    start_opensearch
    make_index "$opensearch_http"
    fill opensearch "$opensearch_http" "$large" 5000
    request -X POST "http://$opensearch_http/opensips/_refresh" -o "$tmp/answer"
    ask opensearch "$opensearch_http" "$large"
    note_opensearch_disk "$large"
    stop_opensearch
}

start_rsyslog() {
    # Splits a line at its commas, like lea's built-in pattern.
    cat >"$tmp/rules" <<'RULES'
rule=: %honey_pot_ip:ipv4%,%intruder_ip:ipv4%,%sip_method:char-to:,%,sip:%ani:char-to:@%@%ani_domain:char-to:,%,sip:%dnis:char-to:@%@%dnis_domain:char-to:,%,%user_agent:char-to:,%,[%longitude:char-to:,%,%latitude:char-to:]%]
RULES
    cat >"$tmp/rsyslog.conf" <<CONFIG
global(workDirectory="$tmp")
module(load="imtcp") module(load="mmnormalize")
template(name="json" type="string" string="%\$!all-json%\\n")
input(type="imtcp" address="127.0.0.1" port="0" listenPortFileName="$tmp/rsyslog.port" ruleset="events")
ruleset(name="events") {
    action(type="mmnormalize" ruleBase="$tmp/rules")
    action(type="omfile" file="$1" template="json")
}
CONFIG
    rm -f "$tmp/rsyslog.port"
    rsyslogd -n -f "$tmp/rsyslog.conf" -i "$tmp/rsyslog.pid" 2>"$tmp/rsyslog.log" &
    pids+=($!) other_pid=$!
    wait_for . "$tmp/rsyslog.port"
    other_addr=127.0.0.1:$(cat "$tmp/rsyslog.port")
}

start_syslog-ng() {
    local port=$((10000 + RANDOM % 20000)) number='-?[0-9.]+'
    cat >"$tmp/syslog-ng.conf" <<CONFIG
@version: 3.38
source s { network(ip("127.0.0.1") port($port) transport("tcp")); };
parser p { regexp-parser(prefix("event.") patterns("^(?<honey_pot_ip>[0-9.]+),(?<intruder_ip>[0-9.]+),(?<sip_method>\\\\w+),sip:(?<ani>[^@]*)@(?<ani_domain>[^,]*),sip:(?<dnis>[^@]*)@(?<dnis_domain>[^,]*),(?<user_agent>.*),\\\\[(?<longitude>$number),(?<latitude>$number)\\\\]\$")); };
destination d { file("$1" template("\$(format-json --key event.*)\\n")); };
log { source(s); parser(p); destination(d); flags(flow-control); };
CONFIG
    LD_LIBRARY_PATH=$syslog_ng/usr/lib/syslog-ng "$syslog_ng/usr/sbin/syslog-ng" --foreground --no-caps --stderr --verbose \
        --module-path "$syslog_ng/usr/lib/syslog-ng/3.38" --cfgfile "$tmp/syslog-ng.conf" --persist-file "$tmp/persist" \
        --pidfile "$tmp/syslog-ng.pid" --control "$tmp/control" 2>"$tmp/syslog-ng.log" &
    pids+=($!) other_pid=$!
    wait_for 'starting up' "$tmp/syslog-ng.log"
    other_addr=127.0.0.1:$port
}

# lea parses the lines into its store, the others into a JSON file.
syslog() {
    local round name number
    note lea lines "$lines"
    for ((round = 0; round < rounds; round++)); do
        rm -rf "$tmp/out"
        start_lea "$tmp/out"
        note lea lines_per_s "$("$client" syslog "$lea_syslog" "$lines" "$connections" "$lea_http" | value lines_per_s)"
        number=$(request "http://$lea_http/_count?q=user_agent:sipvicious+AND+_exists_:dnis" | jq .count)
        [ "$number" -gt $((lines / 10)) ] || fail "lea took $number lines apart"
        stop_lea
        for name in rsyslog syslog-ng; do
            rm -f "$tmp/events"
            "start_$name" "$tmp/events"
            note "$name" lines_per_s "$("$client" syslog "$other_addr" "$lines" "$connections" "$tmp/events" | value lines_per_s)"
            number=$(grep -c '"user_agent": *"sipvicious"' "$tmp/events")
            [ "$number" -gt $((lines / 10)) ] || { head -3 "$tmp/events" >&2; fail "$name took $number lines apart"; }
            kill -TERM "$other_pid"
            wait "$other_pid" || true
        done
    done
}

tables() {
    printf '%s, %s, %s cores, Linux %s, lea %s (%s).\n%s, heap %s, Java %s; %s; syslog-ng %s.\nMedian of %s rounds; load before:%s.\n\n' \
        "$(date -u +%F)" "$(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)" "$(nproc)" "$(uname -r)" \
        "$("$lea" --version | cut -d' ' -f2)" "$(git rev-parse --short HEAD 2>/dev/null || echo 'no commit')" \
        "$version" "$heap" "$(cat "$figures/java")" "$(rsyslogd -v | sed -n '1s/ *(.*//p')" \
        "$(LD_LIBRARY_PATH=$syslog_ng/usr/lib/syslog-ng "$syslog_ng/usr/sbin/syslog-ng" --version | sed -n 's/^syslog-ng .* (\(.*\))/\1/p;1q')" \
        "$rounds" "$(cd "$figures" && awk '$1 == "machine" { printf "%s %s %s", (NR > FNR ? "," : ""), FILENAME, $3 }' small large-lea large-opensearch syslog)"
    awk -v goals="${document:+1}" -f scripts/bench-events.awk "$figures"/{small,large-lea,large-opensearch,syslog}
}

for part in $parts; do
    if [ "$part" != tables ]; then
        echo "part $part"
        echo "machine load $(cut -d' ' -f1 /proc/loadavg)" >"$figures/$part"
        "$part"
    fi
done
if [ -z "$document" ]; then
    : >"$figures/large-lea"
    : >"$figures/large-opensearch"
    tables
elif [[ $parts = tables || $parts = *' '* ]]; then
    tables >"$tmp/tables"
    awk -v tables="$tmp/tables" '
        /<!-- events: end -->/ { inside = 0; while ((getline line < tables) > 0) print line }
        !inside
        /<!-- events: begin -->/ { inside = 1 }' "$document" >"$tmp/document"
    cat "$tmp/document" >"$document"
    cat "$tmp/tables"
fi
