# From the records to the pages. Cheap and always done: what they show may have come by another way.

STLIB = f"{sys.executable} -m stlib.cli"
RENEW_TABLES = f"{STLIB} readme && {STLIB} queue --data '{DATA_ROOT}'" if not DEMO else "true"


rule tables:
    input:
        [marker(cell) for cell in TO_RUN],
    output:
        temp(touch(DONE / "tables")),
    shell:
        RENEW_TABLES


rule site:
    input:
        rules.tables.output,
    output:
        temp(touch(DONE / "site")),
    params:
        venv=sys.prefix,
    shell:
        "MAKEFLAGS= make -C {ROOT:q} book VENV={params.venv:q}"
