"""The parts of bench/instructions.sh that a shell does badly: a client that sends an exact number of requests, and the sums
of what callgrind counted."""

import collections
import http.client
import re
import sys


def send(port, path, count):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for _ in range(count):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            sys.exit(f"{path} answered {response.status}")


def counts(annotated):
    """Pairs of (function, shared object) and the instructions of each, from the output of callgrind_annotate."""
    for line in annotated:
        found = re.match(r"\s*([\d,]+)\s.*?\s?(\S+:\S.*?)(?: \[([^\]]*)\])?\s*$", line)
        if found and "PROGRAM TOTALS" not in line:
            name, place = found[2].split(":", 1)[-1], found[3]
            if place in (None, "???"):
                # Code without a name was compiled at run time; callgrind loses the object of some functions of ours.
                place = "compiled Lua and filters" if name.startswith("0x") else "libresty_proxy_wasm.so"
            yield name, place.rsplit("/", 1)[-1], int(found[1].replace(",", ""))


def objects(annotated, requests):
    """Instructions of each request by shared object."""
    sums = collections.Counter()
    for _, place, count in counts(annotated):
        sums[place] += count
    for name, count in sums.most_common(8):
        print(f"    {count / requests:>10.0f}  {name}")


def functions(annotated, requests):
    """Instructions of each request by function, those that it calls not counted."""
    sums = collections.Counter()
    for name, place, count in counts(annotated):
        sums[f"{name} [{place}]"] += count
    for name, count in sums.most_common(60):
        print(f"    {count / requests:>10.0f}  {name[:150]}")


def judge(budgets, figures):
    """Compares figures, lines of `ROW ADDED WHOLE`, with their budgets, lines of `ROW ADDED`. Of a row that was counted several
    times the lowest figure counts. A figure may be 3 % more than its budget, and 1 % of the whole request, by which the two
    counts vary whose difference it is.

    Prints the rows that passed their budget, a line of `ROW WHY` each."""

    def read(path):
        rows = (line.split("#")[0].split() for line in open(path))
        return [row for row in rows if row]

    budget = {row[0]: row[1:] for row in read(budgets)}
    lowest = {}
    for row, added, whole in read(figures):
        lowest[row] = min(lowest.get(row, (int(added), int(whole))), (int(added), int(whole)))
    for row, (added, whole) in lowest.items():
        if row not in budget:
            print(f"{row} has no budget")
            continue
        most = int(budget[row][0])
        leeway = round(most * 0.03 + whole * 0.01)
        if added > most + leeway:
            print(f"{row} takes {added} instructions; its budget is {most}, and {leeway} that counts vary by")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "send":
        send(int(arguments[0]), arguments[1], int(arguments[2]))
    elif command in ("objects", "functions"):
        show = objects if command == "objects" else functions
        show(sys.stdin, int(arguments[0]))
    elif command == "judge":
        judge(*arguments)
    else:
        sys.exit(f"unknown command {command}")
