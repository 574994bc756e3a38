#!/usr/bin/env bash
# Measures throughput and CPU of `lea consume-kafka` and of other consumers on the same topic of a real broker. All run on
# this machine in one run: three rounds, medians, everything on a tmpfs. The table replaces the one between the markers in
# docs/benchmarks.md. --short: tiny sizes, one round, the table goes to stdout only.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

# Senders set no key, so their topic has one partition (docs/replay.md).
partitions=${KAFKA_PARTITIONS:-1} streams=16 chunk=2991 version=4.3.1
document=docs/benchmarks.md rounds=3 records=262144 python_records=32768
case "$#:${1-}" in
    0:) ;;
    1:--short) document='' rounds=1 records=4096 python_records=1024 ;;
    *)
        echo "usage: scripts/bench-kafka.sh [--short]" >&2
        exit 2
        ;;
esac

fail() {
    echo "bench-kafka.sh: $*" >&2
    exit 1
}

for tool in kcat java python3 awk; do
    command -v "$tool" >/dev/null || fail "$tool is missing (scripts/test.sh installs it)"
done
# Space for the topic, for its content twice, and some reserve.
wanted_mib=$((records * 3 / 256 + 256))
free_mib=$(df --output=avail -m /dev/shm | tail -1)
[ "$free_mib" -gt "$wanted_mib" ] || fail "/dev/shm has $((free_mib)) MiB free; $wanted_mib are needed"
cargo build --release --locked --bin lea --example kafka_poll
lea=${LEA:-target/release/lea}
python=$(scripts/kafka-python)

tmp=$(mktemp -d /dev/shm/lea-bench.XXXXXX)
results=$tmp/results
broker=
clean_up() {
    [ -z "$broker" ] || scripts/kafka-broker stop "$broker"
    rm -rf "$tmp"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

start_broker() {
    local port tries
    for ((tries = 0; tries < 10; tries++)); do
        port=$((10000 + RANDOM % 20000))
        if KAFKA_BROKER_OWNER=$$ scripts/kafka-broker start "$version" "$port" "$tmp/broker"; then
            broker=$tmp/broker
            brokers=127.0.0.1:$port
            scripts/kafka-broker topic "$broker" interception "$partitions"
            return
        fi
    done
    fail "no broker"
}

# Repeats the packets of a real call to the length of a stream, and produces all streams to the topic.
produce() {
    local bytes=$((records * chunk / streams))
    tail -c +25 testdata/pcap/answered-call.pcap >"$tmp/packets"
    head -c 24 testdata/pcap/answered-call.pcap >"$tmp/capture"
    while [ "$(stat -c %s "$tmp/capture")" -lt "$bytes" ]; do
        cat "$tmp/packets" "$tmp/packets" "$tmp/packets" "$tmp/packets" >>"$tmp/capture"
    done
    truncate -s "$bytes" "$tmp/capture"
    "$lea" -q replay "$tmp/capture" --kafka "$brokers" --topic interception --topspeed --chunk "$chunk" \
        --streams "$streams" --name '+447700900123-2-3_21_11_2026_20:59:41.pcap'
}

# A minimal receiver: appends the content of each record to the file of its name.
old_receiver() {
    cat >"$tmp/old.py" <<'PYTHON'
import base64, json, os, sys
from kafka import KafkaConsumer

brokers, group, folder, wanted = sys.argv[1:]
consumer = KafkaConsumer("interception", bootstrap_servers=brokers, group_id=group, auto_offset_reset="earliest")
wanted = int(wanted)
for record in consumer:
    value = json.loads(record.value)
    with open(os.path.join(folder, value["interceptionfilename"]), "ab") as file:
        file.write(base64.b64decode(value["data"]))
    wanted -= 1
    if wanted == 0:
        break
consumer.close()
PYTHON
    "$python" "$tmp/old.py" "$brokers" "$1" "$tmp/files" "$python_records"
}

consume() {
    local group=bench-$1-$2
    case $1 in
        kcat) kcat -C -q -e -b "$brokers" -t interception -o beginning >/dev/null ;;
        bare) target/release/examples/kafka_poll "$brokers" interception "$group" "$records" ;;
        lea) "$lea" -q consume-kafka -b "$brokers" -t interception -g "$group" --output "$tmp/files" --exit-at-end ;;
        python) old_receiver "$group" ;;
    esac
}

# Prints one measurement: consumer, records, seconds, CPU seconds.
measure() {
    local took count=$records
    rm -rf "$tmp/files"
    mkdir "$tmp/files"
    [ "$1" != python ] || count=$python_records
    TIMEFORMAT='%R %U %S'
    took=$({ time consume "$1" "$2" >"$tmp/log" 2>&1; } 2>&1) || { cat "$tmp/log" >&2; fail "$1 failed: $took"; }
    awk -v name="$1" -v count="$count" '{ print name, count, $1, $2 + $3 }' <<<"$took" | tee -a "$results"
    [ "$1" != lea ] || check_files
}

# Checks that each stream's file equals what was sent, and that its manifest agrees.
check_files() {
    local file files=("$tmp"/files/*.pcap)
    [ "${#files[@]}" = "$streams" ] || fail "${#files[@]} files in place of $streams"
    for file in "${files[@]}"; do
        cmp "$file" "$tmp/capture" || fail "$file differs"
    done
    # The capture ends within a packet, which verify reports for each file; nothing else may be wrong.
    "$lea" -q verify "$tmp/files" >"$tmp/log" || [ $? = 3 ] || { cat "$tmp/log" >&2; fail 'lea verify'; }
    ! grep -qv '^damaged ' "$tmp/log" || { cat "$tmp/log" >&2; fail 'lea verify'; }
}

start_broker
load=$(cut -d' ' -f1 /proc/loadavg)
produce
consumers='kcat bare lea python'
for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds"
    for name in $consumers; do
        measure "$name" "$round"
    done
done
# As the last round has it; its bytes are those of the values.
value_bytes=$(consume bare bytes 2>&1 | sed -n 's/.* bytes=//p')

table() {
    printf '%s, %s, %s cores, Linux %s, lea %s (%s).\nKafka %s, %s partition%s, %s, librdkafka of lea 2.12.1, kcat %s.\n' \
        "$(date -u +%F)" "$(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)" "$(nproc)" "$(uname -r)" \
        "$("$lea" --version | cut -d' ' -f2)" "$(git rev-parse --short HEAD 2>/dev/null || echo 'no commit')" \
        "$version" "$partitions" "$([ "$partitions" = 1 ] || echo s)" "$streams streams" \
        "$(kcat -V | sed -n 's/^Version \([^ ]*\).*librdkafka \([^ ]*\).*/\1 with librdkafka \2/p')"
    printf '%s records of %s bytes a measurement (kafka-python: %s), median of %s rounds; load before: %s.\n\n' \
        "$records" $((value_bytes / records)) "$python_records" "$rounds" "$load"
    awk -v consumers="$consumers" -v record_bytes=$((value_bytes / records)) -v goals="${document:+1}" \
        -f scripts/bench-kafka.awk "$results"
}

if [ -z "$document" ]; then
    table
else
    table >"$tmp/table"
    awk -v table="$tmp/table" '
        /<!-- kafka: end -->/ { inside = 0; while ((getline line < table) > 0) print line }
        !inside
        /<!-- kafka: begin -->/ { inside = 1 }' "$document" >"$tmp/document"
    cat "$tmp/document" >"$document"
    cat "$tmp/table"
fi
