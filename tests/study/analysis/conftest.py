import pytest

from stlib.protocol import CATEGORIES
from study.analysis.reported import Reported


@pytest.fixture(scope="session")
def printed():
    """Rows as `load_reported` gives them; `values`: category or average -> characters as printed.

    With a `mean`, all 15 categories are printed, 80.0 where `values` says nothing else.
    """

    def rows(
        values, mean="", *, paper="pfadseg", method="draem", metric="iap", table="Table 3", unit="percent"
    ):
        if mean:
            values = dict.fromkeys(CATEGORIES, "80.0") | values | {"mean": mean}
        fixed = {"paper": paper, "source": f"{paper} {table}", "table": table, "method": method}
        fixed |= {"variant": "", "metric": metric, "sd": "", "unit": unit, "note": ""}
        return [Reported(**fixed, category=c, value=v) for c, v in values.items()]

    return rows
