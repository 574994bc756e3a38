#!/usr/bin/env bash
# Measures `lea billing build` and `compare` on ten million rows per side, in bounded memory, and GNU sort on the same
# rows for comparison. One run. The table replaces the one between the markers in docs/benchmarks.md.
# --short: a few rows, the table goes to stdout only.
set -euo pipefail
cd "$(dirname "$0")/.."

document=docs/benchmarks.md calls=2500000 memory=256M rounds=3 wanted_mib=12000
case "$#:${1-}" in
    0:) ;;
    1:--short) document='' calls=5000 memory=256K rounds=1 wanted_mib=200 ;;
    *)
        echo "usage: scripts/bench-billing.sh [--short]" >&2
        exit 2
        ;;
esac

fail() {
    echo "bench-billing.sh: $*" >&2
    exit 1
}

for tool in awk jq python3; do
    command -v "$tool" >/dev/null || fail "$tool is missing (scripts/test.sh installs it)"
done
tmp=$(mktemp -d "${BENCH_DIR:-/var/tmp}/lea-bench.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
free_mib=$(df --output=avail -m "$tmp" | tail -1)
[ "$free_mib" -gt "$wanted_mib" ] || fail "$tmp has $((free_mib)) MiB free; $wanted_mib are needed"
[ -n "${LEA-}" ] || cargo build --release --locked --bin lea --example events_client
lea=${LEA:-target/release/lea}
load=$(cut -d' ' -f1 /proc/loadavg)

# Writes the rows of all calls in the order of a proxy's log. Calls last one or two minutes, so the rows of a call are far
# apart. One call in a thousand is longer by $1 seconds.
make_rows() {
    awk -v calls="$calls" -v longer="$1" '
        function row(nth, method, column, time, code) {
            printf "{\"method\":\"%s\",\"%s\":%d,\"microseconds\":%d,\"reply_code\":%d,\"caller_id\":\"+447700900%03d\",\"callee_id\":\"+120255501%02d\",\"call_id\":\"%08x-%d@192.0.2.1\"}\n",
                method, column, time, nth % 1000, code, nth % 1000, nth % 100, (nth * 40503) % 16777213, nth
        }
        function hang_up(nth,    ends) {
            ends = 1795305600 + int(nth / 500) + 60 + (nth % 1000 == 0 ? longer : 0)
            row(nth, "BYE", "request_time", ends, 0)
            row(nth, "BYE", "reply_time", ends, 200)
        }
        BEGIN {
            for (nth = 0; nth < calls; nth++) {
                row(nth, "INVITE", "request_time", 1795305600 + int(nth / 500), 0)
                row(nth, "INVITE", "reply_time", 1795305602 + int(nth / 500), 200)
                if (nth >= 30000) hang_up(nth - 30000)
            }
            for (nth = calls > 30000 ? calls - 30000 : 0; nth < calls; nth++) hang_up(nth)
        }'
}

# Runs a command with its output in $tmp/out. Records $1 (label), seconds, CPU seconds, peak MiB. Expects exit code $2.
measured() {
    local name=$1 wanted=$2
    shift 2
    python3 - "$name" "$@" >>"$tmp/figures" <<'PYTHON' || fail "$name failed"
import os, resource, subprocess, sys, time
name, command = sys.argv[1], sys.argv[2:]
with open(os.environ["OUT"], "wb") as out:
    began = time.monotonic()
    code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out).returncode
seconds = time.monotonic() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(name, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, code)
PYTHON
    [ "$(tail -1 "$tmp/figures" | cut -d' ' -f5)" = "$wanted" ] || fail "$name: $(tail -1 "$tmp/figures")"
}

export OUT=$tmp/out TMPDIR=$tmp LC_ALL=C
make_rows 0 >"$tmp/ours"
make_rows 3 >"$tmp/theirs"
rows=$((4 * calls))
[ "$(wc -l <"$tmp/ours")" = "$rows" ] || fail 'the rows are not as many as they should be'
for ((round = 1; round <= rounds; round++)); do
    measured sort 0 sort -S "$memory" --parallel=2 -t '"' -k 22,22 "$tmp/ours"
    measured build 0 "$lea" billing build --sort-memory "$memory" --time-zone utc --csv "$tmp/ours"
    [ "$(wc -l <"$tmp/out")" = $((calls + 1)) ] || fail 'build: calls are lacking'
    measured compare 3 "$lea" billing compare --sort-memory "$memory" --time-zone utc --csv "$tmp/ours" "$tmp/theirs"
    [ "$(grep -c ',duration,' "$tmp/out")" = $(((calls + 999) / 1000)) ] || fail 'compare: not the calls that differ'
done

table() {
    printf '%s, %s, %s cores, Linux %s, lea %s (%s), %s; load before: %s.\n%s rows of %s bytes a side, %s of memory for rows, median of %s rounds.\n\n' \
        "$(date -u +%F)" "$(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)" "$(nproc)" "$(uname -r)" \
        "$("$lea" --version | cut -d' ' -f2)" "$(git rev-parse --short HEAD 2>/dev/null || echo 'no commit')" \
        "$(sort --version | head -1)" "$load" "$rows" $(($(stat -c %s "$tmp/ours") / rows)) "$memory" "$rounds"
    awk -v rows="$rows" '
        { seconds[$1] = seconds[$1] " " $2; cpu[$1] = cpu[$1] " " $3; if ($4 > memory[$1]) memory[$1] = $4 }
        function median(text,    all, count, i, j, swap) {
            count = split(text, all, " ")
            for (i = 2; i <= count; i++)
                for (j = i; j > 1 && all[j] + 0 < all[j - 1] + 0; j--) { swap = all[j]; all[j] = all[j - 1]; all[j - 1] = swap }
            return all[int((count + 1) / 2)]
        }
        function line(name, label, sides) {
            printf "| %s | %.1f | %.0f | %.1f | %.0f |\n", label, median(seconds[name]), sides * rows / median(seconds[name]),
                median(cpu[name]), memory[name]
        }
        END {
            print "| | s | rows/s | CPU s | peak MiB |\n|---|---:|---:|---:|---:|"
            line("build", "**lea billing build --csv**", 1)
            line("compare", "**lea billing compare --csv**, both sides", 2)
            line("sort", "GNU sort by call id, no calls made", 1)
        }' "$tmp/figures"
}

if [ -z "$document" ]; then
    table
else
    table >"$tmp/table"
    awk -v table="$tmp/table" '
        /<!-- billing: end -->/ { inside = 0; while ((getline line < table) > 0) print line }
        !inside
        /<!-- billing: begin -->/ { inside = 1 }' "$document" >"$tmp/document"
    cat "$tmp/document" >"$document"
    cat "$tmp/table"
fi
