# Prints the tables of events in docs/benchmarks.md from the figures of scripts/bench-events.sh, which are in one file
# per part, with server, figure and value in each line. Medians, except for memory, where the maximum counts. Variable: goals (0 prints no goals).

FNR == 1 { part = FILENAME; sub(/.*\//, "", part); sub(/-.*/, "", part) }
{
    key = part SUBSEP $1 SUBSEP $2
    values[key, ++times[key]] = $3 + 0
    if ($2 == "memory_mib" && $1 == "lea" && $3 + 0 > memory) memory = $3 + 0
}

# Returns the median of a figure.
function of(part, server, name,    key, sorted, count, i, j, swap) {
    key = part SUBSEP server SUBSEP name
    count = times[key]
    if (!count) return 0
    for (i = 1; i <= count; i++) {
        sorted[i] = values[key, i]
        for (j = i; j > 1 && sorted[j] < sorted[j - 1]; j--) { swap = sorted[j]; sorted[j] = sorted[j - 1]; sorted[j - 1] = swap }
    }
    return count % 2 ? sorted[(count + 1) / 2] : (sorted[count / 2] + sorted[count / 2 + 1]) / 2
}
function store(part, server, label, merged) {
    printf "| %s | %.0f | %.3f | %.3f | %s | %.0f%s | %.0f |\n", label, of(part, server, "events_per_s"),
        of(part, server, "count_p50_us") / 1000, of(part, server, "count_p99_us") / 1000,
        (times[part, server, "histogram_ms"] ? sprintf("%.1f (first %.1f)", of(part, server, "histogram_ms"), of(part, server, "first_histogram_ms")) : "-"),
        of(part, server, "bytes_an_event"), merged, of(part, server, "memory_mib")
}
function stores(part, title) {
    printf "| %s | durable events/s | count p50 ms | p99 ms | histogram by day ms | bytes per event on disk | memory MiB |\n", title
    print "|---|---:|---:|---:|---:|---:|---:|"
    store(part, "lea", "**lea serve-events**", "")
    store(part, "opensearch", "OpenSearch", sprintf(", one segment: %.0f", of(part, "opensearch", "merged_bytes_an_event")))
    print ""
}
function lines(server, label) {
    printf "| %s | %.0f | %.2f |\n", label, of("syslog", server, "lines_per_s"), of("syslog", server, "lines_per_s") / of("syslog", "rsyslog", "lines_per_s")
}
# Prints a goal's line. direction is 1 if more is better.
function goal(label, unit, wanted, measured, direction) {
    printf "| %s | %s %g%s | %.2f%s | %s (%+.0f %%) |\n", label, (direction > 0 ? ">=" : "<="), wanted, unit, measured, unit,
        ((measured - wanted) * direction >= 0 ? "met" : "**missed**"), (measured / wanted - 1) * 100
}
function count_goals(part, title) {
    goal("count, " title ", p50", " ms", 0.2, of(part, "lea", "count_p50_us") / 1000, -1)
    goal("count, " title ", p99", " ms", 1, of(part, "lea", "count_p99_us") / 1000, -1)
}
function disk_goal(part, title) {
    goal("bytes per event, " title ", of OpenSearch", "", 1.5, of(part, "lea", "bytes_an_event") / of(part, "opensearch", "bytes_an_event"), -1)
}

END {
    stores("small", sprintf("%d events of %d bytes", of("small", "lea", "events"), of("small", "lea", "event_bytes")))
    if (times["large", "lea", "events_per_s"]) stores("large", "5,000,000 events")
    printf "| %d syslog lines parsed | lines/s | of rsyslog |\n|---|---:|---:|\n", of("syslog", "lea", "lines")
    lines("lea", "**lea serve-events**: grok, durable and indexed")
    lines("rsyslog", "rsyslog: mmnormalize, JSON into a file")
    lines("syslog-ng", "syslog-ng: regexp-parser, JSON into a file")
    if (!goals) exit
    print "\n| goal | wanted | measured | |\n|---|---|---|---|"
    goal("`_bulk`, durable, of OpenSearch", "", 1.5, of("small", "lea", "events_per_s") / of("small", "opensearch", "events_per_s"), 1)
    count_goals("small", "200,000 events")
    count_goals("large", "5 M events")
    goal("histogram of 5 M events by day", " ms", 100, of("large", "lea", "histogram_ms"), -1)
    disk_goal("small", "200,000 events")
    disk_goal("large", "5 M events")
    goal("lea's memory, the most of all parts", " MiB", 256, memory, -1)
}
