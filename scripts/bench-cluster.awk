# Prints the cluster table of docs/benchmarks.md from the results of scripts/bench-cluster.sh: medians, ratios, goals.
# Variables: shippers (in the order of the table), goals (0 prints no goals).

{
    round = ++rounds[$1]
    events[$1] = $2
    seconds[$1, round] = $3
    cpu[$1, round] = $4
    node[$1, round] = $5
    memory[$1, round] = $6
    stored[$1, round] = $7
}

# Returns the median of values[name, 1..count].
function median(values, name, count,    sorted, i, j, swap) {
    for (i = 1; i <= count; i++) {
        sorted[i] = values[name, i] + 0
        for (j = i; j > 1 && sorted[j] < sorted[j - 1]; j--) { swap = sorted[j]; sorted[j] = sorted[j - 1]; sorted[j - 1] = swap }
    }
    return count % 2 ? sorted[(count + 1) / 2] : (sorted[count / 2] + sorted[count / 2 + 1]) / 2
}
function speed(name) { return events[name] / median(seconds, name, rounds[name]) }
function goal(name, text,    ratio) {
    if (!(name in rounds)) return
    ratio = speed("lea") / speed(name)
    printf "| events/s of %s | >= 1.0 | %.2f | %s (%+.0f %%) |\n", text, ratio, (ratio >= 1 ? "met" : "**missed**"), (ratio - 1) * 100
}

END {
    label["lea"] = "**lea serve-events --cluster**"
    label["rsyslog"] = "rsyslog, omelasticsearch"
    label["syslog-ng"] = "syslog-ng, elasticsearch-http"
    label["syslog-ng-disk"] = "syslog-ng, disk-buffer"
    kept["lea"] = "spool on disk, synced; lea sets the ids"
    kept["rsyslog"] = "memory"
    kept["syslog-ng"] = "memory"
    kept["syslog-ng-disk"] = "queue on disk, not synced"

    print "| shipper | events/s | CPU s per million | node's CPU s per million | peak MiB | bytes per event in the index | what it holds is in |\n|---|---:|---:|---:|---:|---:|---|"
    count = split(shippers, names, " ")
    for (i = 1; i <= count; i++) {
        name = names[i]
        millions = events[name] / 1e6
        printf "| %s | %.0f | %.1f | %.1f | %.0f | %.0f | %s |\n", label[name], speed(name), median(cpu, name, rounds[name]) / millions,
            median(node, name, rounds[name]) / millions, median(memory, name, rounds[name]),
            median(stored, name, rounds[name]) / events[name], kept[name]
    }
    if (!goals) exit
    print "\n| goal | wanted | measured | |\n|---|---|---|---|"
    for (i = 1; i <= count; i++) if (names[i] != "lea") goal(names[i], label[names[i]])
}
