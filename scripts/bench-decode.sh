#!/usr/bin/env bash
# Measures `lea decode`, cp, jq and Python on dumps of 16 streams in a tmpfs: alternating rounds, medians. The table goes
# to stdout, progress to stderr. --short: tiny dumps and one round, to show that the benchmark runs. bench.sh calls this.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=3 mib=400
case "$#:${1-}" in
    0:) ;;
    1:--short) rounds=1 mib=8 ;;
    *)
        echo "usage: scripts/bench-decode.sh [--short]" >&2
        exit 2
        ;;
esac

for tool in jq base64 python3 awk; do
    command -v "$tool" >/dev/null || { echo "bench-decode.sh: $tool is missing (scripts/test.sh installs it)" >&2; exit 1; }
done
cargo build --release --locked --bin lea --example make_dumps >&2
lea=target/release/lea

tmp=$(mktemp -d /dev/shm/lea-decode.XXXXXX)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
target/release/examples/make_dumps "$tmp" testdata/pcap/answered-call.pcap 16 "$mib"

# A script of a few lines: one file per stream, without manifest, hash and checks.
python='
import base64, json, os, sys
files = {}
for line in open(sys.argv[1], "rb"):
    record = json.loads(line)
    if "payload" in record:
        record = json.loads(record["payload"])
    name = record["interceptionfilename"]
    if name not in files:
        files[name] = open(os.path.join(sys.argv[2], name), "wb")
    files[name].write(base64.b64decode(record["data"]))
'

run() {
    case $1 in
        cp) cp "$2" "$tmp/out/copy" ;;
        lea) "$lea" -q decode --output "$tmp/out" "$2" 2>"$tmp/log" || { cat "$tmp/log" >&2; return 1; } ;;
        lea-none) "$lea" -q decode --hash none --output "$tmp/out" "$2" 2>"$tmp/log" || { cat "$tmp/log" >&2; return 1; } ;;
        jq) jq -r "$3" <"$2" | base64 -d >"$tmp/out/all" ;;
        python) python3 -c "$python" "$2" "$tmp/out" ;;
    esac
}

# Prints one measurement: dump, program, seconds, bytes of the dump.
measure() {
    local file=$tmp/$2 seconds
    rm -rf "$tmp/out"
    mkdir "$tmp/out"
    TIMEFORMAT=%R
    seconds=$({ time run "$3" "$file" "${4-}" 1>&3; } 3>&1 2>&1)
    echo "$1 $3 $seconds $(stat -c %s "$file")" | tee -a "$tmp/results" >&2
}

for ((round = 1; round <= rounds; round++)); do
    for who in cp lea lea-none jq python; do measure values values "$who" .data; done
    for who in cp lea lea-none jq python; do measure kcat kcat "$who" '.payload | fromjson | .data'; done
    for who in cp lea lea-none; do measure segment bench-0/00000000000000000000.log "$who"; done
done

awk -v mib="$mib" -v short="$((rounds == 1))" '
    { n = ++count[$1, $2]; seconds[$1, $2, n] = $3; bytes[$1] = $4 }
    function median(dump, who,    i, j, n, sorted, swap) {
        n = count[dump, who]
        for (i = 1; i <= n; i++) {
            sorted[i] = seconds[dump, who, i] + 0
            for (j = i; j > 1 && sorted[j] < sorted[j - 1]; j--) { swap = sorted[j]; sorted[j] = sorted[j - 1]; sorted[j - 1] = swap }
        }
        return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
    }
    END {
        split("values kcat segment", dumps, " "); split("cp lea lea-none jq python", order, " ")
        title["values"] = "values, one a line"; title["kcat"] = "`kcat -J`"; title["segment"] = "raw segment"
        label["cp"] = "`cp`"; label["lea"] = "**lea decode** (SHA-256)"; label["lea-none"] = "**lea decode `--hash none`**"
        label["jq"] = "`jq -r .data \\| base64 -d`"; label["python"] = "Python, a file a stream"
        printf "| decode of %d MiB, 16 streams | by | s | MB/s of the dump | times cp |\n|---|---|---:|---:|---:|\n", mib
        for (d = 1; d <= 3; d++) for (o = 1; o <= 5; o++) {
            dump = dumps[d]; who = order[o]
            if (!((dump, who) in count)) continue
            took = median(dump, who); base = median(dump, "cp")
            printf "| %s | %s | %.2f | %.0f | %.1f |\n", title[dump], label[who], took, took ? bytes[dump] / took / 1e6 : 0, base ? took / base : 0
        }
        if (short) exit
        print "\n| goal | wanted | measured | |\n|---|---|---|---|"
        for (d = 1; d <= 3; d++) {
            got = median(dumps[d], "lea") / median(dumps[d], "cp")
            printf "| decode, %s, of cp | <= 2.0 | %.2f | %s (%+.0f %%) |\n", title[dumps[d]], got, got <= 2 ? "met" : "**missed**", (got / 2 - 1) * 100
        }
    }' "$tmp/results"
