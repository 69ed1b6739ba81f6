"""Judges what the Autobahn|Testsuite's fuzzing client reports.

usage: judge.py NON-STRICT.TXT REPORTS...

REPORTS is a folder whose name is the agent's, with its index.json. Fails where a case failed or did
not run, and where NON-STRICT.TXT does not say just what is not strict.
"""
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

# Those of version 0.8.2 but groups 12 and 13.
CASES = 301
# The client cut the connection, since the server had not: the suite's yellow.
CUT_BY_CLIENT = "FAILED BY CLIENT"


def in_order(entry):
    """Cases by their numbers, then what is no case."""
    parts = entry.split(".")
    return [[int(part) for part in parts], ""] if parts[0].isdigit() else [[sys.maxsize], entry]


def explained(path):
    """What the file says not to be strict: each line has a case, or `close-CODE`, and its reason."""
    reasons = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            entry, _, reason = line.partition(" ")
            if not reason.strip() or entry in reasons:
                sys.exit(f"{path}: no reason, or a second one: {line}")
            reasons[entry] = reason.strip()
    return reasons


def judge(reports, cases, reasons):
    """What is wrong in one agent's reports."""
    agent = reports.name
    wrong, loose = [], defaultdict(list)
    if len(cases) != CASES:
        wrong.append(f"{agent}: {len(cases)} cases ran, not {CASES}")
    for case in sorted(cases, key=in_order):
        found = cases[case]
        behaviour, close, code = found["behavior"], found["behaviorClose"], found["remoteCloseCode"]
        said = json.loads((reports / found["reportfile"]).read_text())
        what = f"{agent}: {case}"
        wire = (reports / found["reportfile"]).with_suffix(".html")
        if behaviour == "NON-STRICT":
            loose[case].append(case)
        elif behaviour not in ("OK", "INFORMATIONAL"):
            wrong.append(f"{what} is {behaviour}: {said['result']} See {wire}")
        if said["wasCloseHandshakeTimeout"]:
            # The suite lets that pass where a case only informs.
            wrong.append(f"{what} waits in vain for an answer to the client's close frame. See {wire}")
        elif close == CUT_BY_CLIENT:
            loose[f"close-{code}"].append(case)
        elif close not in ("OK", "INFORMATIONAL"):
            wrong.append(f"{what} closes {close}: {said['resultClose']} See {wire}")
    for entry in sorted(set(loose) - set(reasons), key=in_order):
        wrong.append(f"{agent}: {entry} is not strict, and is not explained: {' '.join(loose[entry])}")
    for entry in sorted(set(reasons) - set(loose), key=in_order) if len(cases) == CASES else ():
        wrong.append(f"{agent}: {entry} is explained, and is strict by now")
    return wrong


def table(found):
    """Prints how many cases behaved how."""
    print("{:6} {:17}".format("", "") + "".join(f"{agent:>10}" for agent in found))
    for title, key in (("case", "behavior"), ("close", "behaviorClose")):
        counts = {agent: Counter(case[key] for case in cases.values()) for agent, cases in found.items()}
        for behaviour in sorted(set().union(*counts.values()), key=lambda name: (name != "OK", name)):
            row = "".join(f"{count[behaviour]:10}" for count in counts.values())
            print(f"{title:6} {behaviour:17}{row}")


def main():
    explanations, *folders = map(Path, sys.argv[1:])
    reasons = explained(explanations)
    wrong, found = [], {}
    for reports in folders:
        index = reports / "index.json"
        if not index.exists():
            sys.exit(f"{index} is missing")
        cases = json.loads(index.read_text()).get(reports.name, {})
        found[reports.name] = cases
        wrong += judge(reports, cases, reasons)
    table(found)
    sys.exit("\n".join(wrong) if wrong or not folders else 0)


main()
