"""Fail when a test was skipped that the written list does not allow.

Usage: check_skips.py REPORT.xml ALLOWED.txt, where the report is what ``pytest --junit-xml`` wrote.
Expected failures count as skips, since they too are tests that prove nothing. A report without a
single test is an error.
"""

from __future__ import annotations

import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree


def test_name(case: ElementTree.Element) -> str:
    """Name of a test as pytest prints it: ``tests/test_x.py::TestClass::test_y[1]``.

    The report holds the module, with dots for slashes, and the class in one attribute. Where a
    module was skipped as a whole, that attribute is empty and the module is the name.
    """
    places, name = case.get("classname", ""), case.get("name", "")
    if not places:
        return name.replace(".", "/") + ".py"
    parts = places.split(".")
    # Modules are in lower case, classes are not.
    classes = [part for part in parts if part[:1].isupper()]
    path = "/".join(parts[: len(parts) - len(classes)]) + ".py"
    return "::".join((path, *classes, name))


def allowed_patterns(text: str) -> list[str]:
    """Patterns of the list, each with its brackets made literal; every line must give a reason."""
    patterns = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pattern, *reason = re.split(r"\s{2,}", line.strip(), maxsplit=1)
        if not reason:
            sys.exit(f"the list of allowed skips gives no reason for {pattern}")
        patterns.append(pattern.replace("[", "[[]"))
    return patterns


def main() -> None:
    """Compare the report with the list."""
    report, allowed = map(Path, sys.argv[1:])
    cases = list(ElementTree.parse(report).iter("testcase"))
    if not cases:
        sys.exit("no test was run")
    patterns = allowed_patterns(allowed.read_text(encoding="utf-8"))
    skipped = {test_name(case): case.find("skipped") for case in cases}
    skipped = {name: skip for name, skip in skipped.items() if skip is not None}
    wrong = [name for name in skipped if not any(fnmatchcase(name, p) for p in patterns)]
    for name in wrong:
        print(f"skipped, but not on the list: {name}: {skipped[name].text or 'expected to fail'}")
    print(f"{len(cases)} tests, {len(skipped)} skipped, {len(wrong)} of them not allowed")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
