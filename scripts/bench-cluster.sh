#!/usr/bin/env bash
# Measures how fast events get into a real OpenSearch: `lea serve-events --cluster`, rsyslog's omelasticsearch and
# syslog-ng's elasticsearch-http receive the same events over TCP. All run on this machine in one run: three rounds,
# medians. The table replaces the one between the markers in docs/benchmarks.md. --short: few events, one round, the
# table goes to stdout only.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

version=opensearch-3.8.0 connections=4 batch=${BENCH_BATCH:-5000} workers=${BENCH_WORKERS:-2}
document=docs/benchmarks.md rounds=3 events=200000 warm_up=200000
shippers='lea rsyslog syslog-ng syslog-ng-disk'
case "$#:${1-}" in
    0:) ;;
    1:--short) document='' rounds=1 events=2000 warm_up=500 shippers='lea rsyslog syslog-ng' ;;
    *)
        echo "usage: scripts/bench-cluster.sh [--short]" >&2
        exit 2
        ;;
esac
rounds=${BENCH_ROUNDS:-$rounds} events=${BENCH_EVENTS:-$events} shippers=${BENCH_SHIPPERS:-$shippers}

fail() {
    echo "bench-cluster.sh: $*" >&2
    exit 1
}

for tool in curl java jq rsyslogd socat ss awk; do
    command -v "$tool" >/dev/null || fail "$tool is missing (scripts/test.sh installs it)"
done
[ -n "${LEA-}" ] || cargo build --release --locked --bin lea --example events_client
lea=${LEA:-target/release/lea}
syslog_ng=$(scripts/debian-unpacked syslog-ng)

# On a disk, like spools and indices in production. The node's user must be able to enter its directory.
tmp=$(mktemp -d "${BENCH_DIR:-/var/tmp}/lea-bench.XXXXXX")
chmod 711 "$tmp"
results=$tmp/results
node=
shipper_pid=
clean_up() {
    [ -z "$shipper_pid" ] || kill -KILL "$shipper_pid" 2>/dev/null || true
    [ -z "$node" ] || scripts/search-node stop "$node"
    rm -rf "$tmp"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

start_node() {
    local tries
    for ((tries = 0; tries < 10; tries++)); do
        port=$((10000 + RANDOM % 20000))
        if SEARCH_NODE_OWNER=$$ SEARCH_NODE_HEAP=${BENCH_HEAP:-2g} scripts/search-node start "$version" "$port" "$tmp/node"; then
            node=$tmp/node
            url=http://127.0.0.1:$port
            return
        fi
    done
    fail "no node"
}

# Writes log lines of a proxy: 500 attackers, 20 numbers in six dialled forms, five user agents, today's date.
make_events() {
    awk -v count="$1" -v day="$(date '+%b %e')" 'BEGIN {
        srand(1)
        prefixes = split("+ 00 011 9011 901511 810", prefix, " ")
        agents = split("friendly-scanner|sipcli/v1.8|Cisco-SIPGateway/IOS-12.x|VaxSIPUserAgent/3.1|pplsip", agent, "|")
        methods = split("INVITE INVITE INVITE REGISTER OPTIONS", method, " ")
        for (n = 0; n < count; n++) {
            second = int(n * 86400 / count)
            number = rand() < 0.1 ? "972598294121" : sprintf("4477009%05d", 100 + int(rand() * 20))
            printf "<134>%s %02d:%02d:%02d honey%d opensips[2101]: 198.51.100.7,203.0.113.%d,%s,sip:%d@198.51.100.7,sip:%s%s@198.51.100.7,%s,[%.2f,%.2f]\n",
                day, second / 3600, second % 3600 / 60, second % 60, n % 3 + 1, rand() * 250,
                method[int(rand() * methods) + 1], 100 + rand() * 900, prefix[int(rand() * prefixes) + 1], number,
                agent[int(rand() * agents) + 1], rand() * 360 - 180, rand() * 140 - 70
        }
    }'
}

# Configures rsyslog with a rule base, its fastest parser. $1: parameters of the action's queue.
rsyslog_config() {
    cat >"$tmp/rules" <<'RULES'
version=2
rule=:%honey_pot_ip:char-to:,%,%intruder_ip:char-to:,%,%sip_method:char-to:,%,sip:%ani:char-to:@%@%ani_domain:char-to:,%,sip:%dnis:char-to:@%@%dnis_domain:char-to:,%,%user_agent:char-to:,%,[%longitude:char-to:,%,%latitude:char-to:]%]
RULES
    cat <<CONF
global(workDirectory="$tmp/files" maxMessageSize="8k")
module(load="imptcp" threads="2") module(load="mmrm1stspace") module(load="mmnormalize") module(load="omelasticsearch")
input(type="imptcp" address="127.0.0.1" port="0" ruleset="events" listenPortFileName="$tmp/files/port")
template(name="event" type="list" option.jsonf="on") {
    property(outname="@timestamp" name="timereported" dateFormat="rfc3339" date.inUTC="on" format="jsonf")
    constant(outname="@version" value="1" format="jsonf")
    constant(outname="type" value="syslog" format="jsonf")
    property(outname="syslog_timestamp" name="timereported" dateFormat="rfc3164" format="jsonf")
    property(outname="message" name="msg" format="jsonf")
    property(outname="host" name="fromhost-ip" format="jsonf")
    property(outname="syslog_host" name="hostname" format="jsonf")
    property(outname="syslog_program" name="programname" format="jsonf")
    property(outname="syslog_pid" name="procid" format="jsonf")
    property(outname="syslog_facility" name="syslogfacility" format="jsonf")
    property(outname="syslog_severity" name="syslogseverity" format="jsonf")
$(for field in honey_pot_ip intruder_ip sip_method ani ani_domain dnis dnis_domain user_agent longitude latitude; do
        echo "    property(outname=\"$field\" name=\"\$!$field\" format=\"jsonf\")"
    done)
}
ruleset(name="events" $1) {
    action(type="mmrm1stspace")
    action(type="mmnormalize" ruleBase="$tmp/rules")
    action(type="omelasticsearch" server="127.0.0.1" serverport="$port" template="event" searchIndex="$index" searchType=""
        bulkmode="on" maxbytes="32m" errorFile="$tmp/files/errors" action.resumeRetryCount="-1")
}
CONF
}

# The receive window must hold more than one bulk request, else each one waits for a time-out.
syslog_ng_config() {
    cat <<CONF
@version: 3.38
@include "$syslog_ng/usr/share/syslog-ng/include/scl/elasticsearch/elastic-http.conf"
options { use-dns(no); log-fifo-size($((batch * 10 * connections * 2))); stats-freq(0); };
source s { network(ip("127.0.0.1") port($1) transport("tcp") max-connections($((connections * 2))) log-fetch-limit(1000) log-iw-size($((batch * 10 * connections * 2)))); };
parser p { csv-parser(delimiters(",@") columns(".f.honey_pot_ip", ".f.intruder_ip", ".f.sip_method", ".f.caller", ".f.ani_domain",
    ".f.called", ".f.dnis_domain", ".f.user_agent", ".f.x", ".f.y")); };
destination d { elasticsearch-http(url("$url/_bulk") index("$index") type("")
    template("\$(format-json @timestamp=\$ISODATE @version=1 type=syslog syslog_timestamp=\$DATE message=\$MSG host=\$SOURCEIP syslog_host=\$HOST syslog_program=\$PROGRAM
        syslog_pid=\$PID syslog_facility=int(\$FACILITY_NUM) syslog_severity=int(\$LEVEL_NUM) honey_pot_ip=\${.f.honey_pot_ip}
        intruder_ip=\${.f.intruder_ip} sip_method=\${.f.sip_method} ani=\$(substr \${.f.caller} 4) ani_domain=\${.f.ani_domain}
        dnis=\$(substr \${.f.called} 4) dnis_domain=\${.f.dnis_domain} user_agent=\${.f.user_agent}
        longitude=\$(substr \${.f.x} 1) latitude=\$(substr \${.f.y} 0 -1))")
    batch-lines($batch) batch-timeout(1000) workers($workers) timeout(60) $2); };
log { source(s); parser(p); destination(d); flags(flow-control); };
CONF
}

# Prints a port that is free now.
free_port() {
    local candidate
    while candidate=$((10000 + RANDOM % 20000)) && ss -Hltn | grep -q ":$candidate "; do :; done
    echo "$candidate"
}

# Starts shipper $1 in the background; sets shipper_pid and address.
start_shipper() {
    local memory_queue='queue.type="FixedArray" queue.size="200000" queue.timeoutEnqueue="600000"' own
    memory_queue+=" queue.dequeueBatchSize=\"$batch\" queue.workerThreads=\"$workers\" queue.workerThreadMinimumMessages=\"$batch\""
    case $1 in
        lea) "$lea" serve-events --syslog tcp:127.0.0.1:0 --output "$tmp/files/lea" --cluster "$url" >/dev/null 2>"$tmp/log" & ;;
        rsyslog)
            rsyslog_config "$memory_queue" >"$tmp/conf"
            rsyslogd -n -f "$tmp/conf" -i "$tmp/files/pid" >"$tmp/log" 2>&1 &
            ;;
        syslog-ng | syslog-ng-disk)
            own=$(free_port)
            case $1 in
                syslog-ng) syslog_ng_config "$own" '' >"$tmp/conf" ;;
                *) syslog_ng_config "$own" "disk-buffer(reliable(yes) disk-buf-size(1073741824) mem-buf-size(67108864) dir(\"$tmp/files\"))" >"$tmp/conf" ;;
            esac
            LD_LIBRARY_PATH=$syslog_ng/usr/lib/syslog-ng "$syslog_ng/usr/sbin/syslog-ng" --foreground --no-caps --stderr \
                --module-path "$syslog_ng/usr/lib/syslog-ng/3.38" --cfgfile "$tmp/conf" --persist-file "$tmp/files/persist" \
                --pidfile "$tmp/files/pid" --control "$tmp/files/control" >"$tmp/log" 2>&1 &
            ;;
        *) fail "no shipper $1" ;;
    esac
    shipper_pid=$!
    local deadline=$((SECONDS + 30))
    until address=$(ss -Hltnp | awk -v pid="pid=$shipper_pid," 'index($0, pid) { print $4; exit }') && [ -n "$address" ]; do
        if ! kill -0 "$shipper_pid" 2>/dev/null || [ "$SECONDS" -gt "$deadline" ]; then
            cat "$tmp/log" >&2
            fail "$1 does not listen"
        fi
        sleep 0.02
    done
}

# Prints the CPU seconds of a process so far.
cpu() { sed 's/.*) //' "/proc/$1/stat" | awk -v hz="$(getconf CLK_TCK)" '{ print ($12 + $13) / hz }'; }

# Sends a request. If it fails, curl's message and the answer's body are shown.
request() { curl --silent --show-error --fail-with-body "$@" || fail "request failed: $*"; }

# Prints how many documents the node has indexed, searchable or not.
taken() { request "$url/syslog-*/_stats/indexing?filter_path=_all.primaries.indexing.index_total" | jq '._all.primaries.indexing.index_total // 0'; }

# Measures shipper $1 with the events in the files $2.*. Prints name, events, seconds, CPU seconds of the shipper and of
# the node, MiB, bytes of the index.
measure() {
    local wanted part node_before began ended memory_kib senders=()
    wanted=$(cat "$2".* | wc -l)
    request -XDELETE "$url/syslog-*" >/dev/null
    rm -rf "$tmp/files"
    mkdir "$tmp/files"
    start_shipper "$1"
    node_before=$(cpu "$(cat "$node/pid")")
    began=$EPOCHREALTIME
    for part in "$2".*; do
        socat -u -b 65536 "OPEN:$part" "TCP:$address" &
        senders+=($!)
    done
    local deadline=$((SECONDS + 300))
    until [ "$(taken)" -ge "$wanted" ]; do
        [ "$SECONDS" -lt "$deadline" ] || { tail -5 "$tmp/log" "$tmp"/files/errors >&2; fail "$1: $(taken) of $wanted after 300 s"; }
        sleep 0.1
    done
    ended=$EPOCHREALTIME
    wait "${senders[@]}"
    memory_kib=$(awk '$1 == "VmHWM:" { print $2 }' "/proc/$shipper_pid/status")
    request -XPOST "$url/syslog-*/_refresh" >/dev/null
    awk -v name="$1" -v events="$wanted" -v began="$began" -v ended="$ended" -v cpu="$(cpu "$shipper_pid")" -v memory_kib="$memory_kib" \
        -v node="$(cpu "$(cat "$node/pid")")" -v before="$node_before" \
        -v stored="$(request "$url/syslog-*/_stats/store?filter_path=_all.primaries.store.size_in_bytes" | jq ._all.primaries.store.size_in_bytes)" \
        'BEGIN { print name, events, ended - began, cpu, node - before, memory_kib / 1024, stored }' | tee -a "$3"
    check "$1" "$wanted"
    kill -TERM "$shipper_pid"
    wait "$shipper_pid" || { cat "$tmp/log" >&2; fail "$1 failed"; }
    shipper_pid=
}

# Checks that each event is stored once, with its fields.
check() {
    local found query
    for query in '' '?q=_exists_:dnis+AND+_exists_:user_agent+AND+intruder_ip:*+AND+syslog_program:opensips+AND+ani_domain:198.51.100.7+AND+type:syslog+AND+_exists_:syslog_timestamp'; do
        found=$(request "$url/syslog-*/_count$query" | jq .count)
        [ "$found" = "$2" ] || fail "$1: $found of $2 events are in the index ($query)"
    done
}

start_node
index=syslog-$(date -u +%Y.%m.%d)
load=$(cut -d' ' -f1 /proc/loadavg)
make_events "$events" >"$tmp/events"
split -n "l/$connections" "$tmp/events" "$tmp/part."
head -n "$warm_up" "$tmp/events" >"$tmp/warm.a"
# Warm-up: a cold node indexes the first documents slowly. lea's template stays for the other shippers.
for name in $shippers; do
    measure "$name" "$tmp/warm" /dev/null >/dev/null
done
order=$shippers
for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds"
    # The order changes from round to round.
    for name in $order; do
        measure "$name" "$tmp/part" "$results"
    done
    order="${order#* } ${order%% *}"
done

table() {
    printf '%s, %s, %s cores, Linux %s, lea %s (%s); %s, rsyslog %s, syslog-ng %s.\n' \
        "$(date -u +%F)" "$(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)" "$(nproc)" "$(uname -r)" \
        "$("$lea" --version | cut -d' ' -f2)" "$(git rev-parse --short HEAD 2>/dev/null || echo 'no commit')" \
        "${version/-/ }" "$(rsyslogd -v | sed -n '1s/^rsyslogd *\([^ ]*\).*/\1/p')" \
        "$(LD_LIBRARY_PATH=$syslog_ng/usr/lib/syslog-ng "$syslog_ng/usr/sbin/syslog-ng" --version | sed -n 's/^syslog-ng [^(]*(\([^)]*\)).*/\1/p')"
    printf '%s events of %s bytes over %s connections a measurement, median of %s rounds; load before: %s.\n\n' \
        "$events" $(($(stat -c %s "$tmp/events") / events)) "$connections" "$rounds" "$load"
    awk -v shippers="$shippers" -v goals="${document:+1}" -f scripts/bench-cluster.awk "$results"
}

if [ -z "$document" ]; then
    table
else
    table >"$tmp/table"
    awk -v table="$tmp/table" '
        /<!-- cluster: end -->/ { inside = 0; while ((getline line < table) > 0) print line }
        !inside
        /<!-- cluster: begin -->/ { inside = 1 }' "$document" >"$tmp/document"
    cat "$tmp/document" >"$document"
    cat "$tmp/table"
fi
