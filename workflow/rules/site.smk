# From the records to the pages. Cheap and always done: what they show may have come by another way.

STUDY = f"{quote(sys.executable)} -m study.cli"
RECORDED = f"--records {quote(str(RECORD_ROOT))}"
RENEW_TABLES = f"{STUDY} readme {RECORDED} && {STUDY} queue {RECORDED} --data {quote(str(DATA_ROOT))}"
if RECORD_ROOT.resolve() != RECORDS.resolve():
    RENEW_TABLES = "true"  # the demo's and a trial's runs are not the study's: README and QUEUE.md stay


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
        venv=os.path.relpath(sys.prefix, ROOT),  # in a name with a space, make would see two
    shell:
        "MAKEFLAGS= make -C {ROOT:q} book VENV={params.venv:q}"
