# Prints the Kafka table of docs/benchmarks.md from the results of scripts/bench-kafka.sh: medians, ratios, the goal.
# Variables: consumers (in the order of the table), record_bytes, goals (0 prints no goals).

{
    round = ++rounds[$1]
    records[$1] = $2
    seconds[$1, round] = $3
    cpu[$1, round] = $4
}

# Returns the median of values[name, 1..count].
function median(values, name, count,    sorted, i, j, swap) {
    for (i = 1; i <= count; i++) {
        sorted[i] = values[name, i] + 0
        for (j = i; j > 1 && sorted[j] < sorted[j - 1]; j--) { swap = sorted[j]; sorted[j] = sorted[j - 1]; sorted[j - 1] = swap }
    }
    return count % 2 ? sorted[(count + 1) / 2] : (sorted[count / 2] + sorted[count / 2 + 1]) / 2
}
function speed(name) { return records[name] / median(seconds, name, rounds[name]) }

END {
    label["kcat"] = "`kcat -C -e` to /dev/null"
    label["bare"] = "bare poll loop, our client and settings"
    label["lea"] = "**lea consume-kafka**, files, SHA-256, checkpoints, commits"
    label["python"] = "kafka-python as the old receiver"

    print "| consumer | records/s | MB/s of values | of kcat | CPU s/GiB |\n|---|---:|---:|---:|---:|"
    count = split(consumers, names, " ")
    for (i = 1; i <= count; i++) {
        name = names[i]
        bytes = records[name] * record_bytes
        printf "| %s | %.0f | %.0f | %.2f | %.2f |\n", label[name], speed(name), speed(name) * record_bytes / 1e6,
            speed(name) / speed("kcat"), median(cpu, name, rounds[name]) / (bytes / 2 ^ 30)
    }
    if (!goals) exit
    of_kcat = speed("lea") / speed("kcat")
    print "\n| goal | wanted | measured | |\n|---|---|---|---|"
    printf "| `consume-kafka` of kcat | >= 1.0 | %.2f | %s (%+.0f %%) |\n", of_kcat, (of_kcat >= 1 ? "met" : "**missed**"), (of_kcat - 1) * 100
}
