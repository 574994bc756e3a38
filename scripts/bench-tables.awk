# Prints the tables of docs/benchmarks.md from the results of scripts/bench.sh: medians, ratios, goals.
# Variables: order (the receivers, in the table's order), many (the number of streams beside 1), goals (0 prints no goals).

FILENAME ~ /\.slow$/ {
    if (!($1 in slow_rounds)) slow_order[++slow_count] = $1
    round = ++slow_rounds[$1]
    for (column = 2; column <= NF; column++) slow[$1, column, round] = $column
    next
}
{
    round = ++rounds[$1, $2]
    speed[$1, $2, round] = $3
    cpu[$1, $2, round] = $4
}

# Returns the median of values[key, 1..count].
function median(values, key, count,    sorted, i, j, swap) {
    for (i = 1; i <= count; i++) {
        sorted[i] = values[key, i] + 0
        for (j = i; j > 1 && sorted[j] < sorted[j - 1]; j--) { swap = sorted[j]; sorted[j] = sorted[j - 1]; sorted[j - 1] = swap }
    }
    return count % 2 ? sorted[(count + 1) / 2] : (sorted[count / 2] + sorted[count / 2 + 1]) / 2
}
function speed_of(name, streams) { return median(speed, name SUBSEP streams, rounds[name, streams]) }
function cpu_of(name, streams) { return median(cpu, name SUBSEP streams, rounds[name, streams]) }
function slow_of(streams, column) { return median(slow, streams SUBSEP column, slow_rounds[streams]) }

# Prints a goal's line: name, goal, measured value, difference. `at_most`: less is better.
function goal(what, wanted, got, unit, at_most,    met, by) {
    met = at_most ? got <= wanted : got >= wanted
    by = (got / wanted - 1) * 100
    printf "| %s | %s %s%s | %.2f%s | %s (%+.0f %%) |\n", what, at_most ? "<=" : ">=", wanted, unit, got, unit, met ? "met" : "**missed**", by
}

function throughput(streams,    count, names, i, name, base) {
    printf "| receiver, %d stream%s | GB/s | of the bare loop | of openssl | CPU s/GiB |\n|---|---:|---:|---:|---:|\n", streams, streams == 1 ? "" : "s"
    count = split(order, names, " ")
    for (i = 1; i <= count; i++) {
        name = names[i]
        printf "| %s | %.2f | %.2f | %.2f | %.3f |\n", label[name], speed_of(name, streams) / 1e9,
            speed_of(name, streams) / speed_of("bare", streams), speed_of(name, streams) / speed_of("openssl", streams), cpu_of(name, streams)
    }
    print ""
}

END {
    label["bare"] = "bare read + write loop, 256 KiB"
    label["socat-256k"] = "`socat -u -b 262144`"
    label["socat"] = "`socat -u`"
    label["ncat"] = "`ncat -l --recv-only`"
    label["lea-none"] = "**lea `--hash none`**"
    label["lea-sha256"] = "**lea** (SHA-256)"
    label["openssl"] = "`openssl dgst -sha256`, no network"

    throughput(1)
    throughput(many)

    print "| slow streams, 100-byte sends | sends/s | whole | p50 ms | p99 ms | max ms | lea's memory MiB | lea's CPU s/s |"
    print "|---:|---:|---:|---:|---:|---:|---:|---:|"
    for (i = 1; i <= slow_count; i++) {
        n = slow_order[i]
        printf "| %d | %d | %d | %.1f | %.1f | %.1f | %.0f | %.2f |\n", n, slow_of(n, 2), slow_of(n, 3), slow_of(n, 4), slow_of(n, 5), slow_of(n, 6), slow_of(n, 7), slow_of(n, 8)
    }

    if (!goals) exit
    print "\n| goal | wanted | measured | |\n|---|---|---|---|"
    goal("one stream, `--hash none`, of the bare loop", 1.0, speed_of("lea-none", 1) / speed_of("bare", 1), "", 0)
    goal(many " streams, `--hash none`, of the bare loop", 0.9, speed_of("lea-none", many) / speed_of("bare", many), "", 0)
    goal("one stream, SHA-256, of openssl", 0.8, speed_of("lea-sha256", 1) / speed_of("openssl", 1), "", 0)
    goal(many " streams, SHA-256, of openssl", 0.8, speed_of("lea-sha256", many) / speed_of("openssl", many), "", 0)
    for (i = 1; i <= slow_count; i++) {
        n = slow_order[i]
        goal(n " slow streams, whole", n, slow_of(n, 3), "", 0)
        goal(n " slow streams, packet to file, p99", 50, slow_of(n, 5), " ms", 1)
        goal(n " slow streams, lea's memory", 256, slow_of(n, 7), " MiB", 1)
    }
}
