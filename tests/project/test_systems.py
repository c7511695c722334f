"""What may not depend on the system that the code runs on."""

import re

from stlib.paths import ROOT

CODE = [path for part in ("stlib", "book", "workflow", "benchmarks") for path in (ROOT / part).rglob("*.py")]


def test_no_text_is_read_or_written_in_the_encoding_of_the_system():
    plain = r"\.read_text\(\)|\.write_text\((?!.*encoding=)|TemporaryFile\(\"[wr]|\.open\((?:\"[arwx]\")?\)"
    faults = {path: re.findall(plain, path.read_text(encoding="utf-8")) for path in CODE}
    assert {path: found for path, found in faults.items() if found} == {}
