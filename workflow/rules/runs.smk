# From the dataset to the records.


rule data:
    output:
        touch(DONE / "data"),
    log:
        OUT / "data.log",
    params:
        root=DATA_ROOT,
        # what has come later is checked, too
        categories=[] if DEMO else sorted(path.parent.name for path in DATA_ROOT.glob("*/train")),
        action="demo" if DEMO else "check",
        accept=str(ACCEPT in ("yes", "true")).lower(),
    resources:
        mem_mb=2000,
        runtime=120,
    shell:
        "{sys.executable:q} -m stlib.cli data {params.action} {params.root:q} > {log:q} 2>&1"
        " || {{ test $? -eq 3 && {params.accept}; }}"


def need(kind: str, method: str):
    if DEMO and kind == "threads":
        return 1  # the same numbers whatever the number of cores, and nothing here is big enough to gain from more
    return config["needs"].get(method, config["needs"]["run"])[kind]


rule tuning:
    input:
        ancient(DONE / "data"),
    output:
        touch(DONE / "tuning" / "{name}"),
    log:
        OUT / "tuning-{name}.log",
    params:
        variant=lambda wildcards: TUNINGS[wildcards.name].variant,
        seed=lambda wildcards: TUNINGS[wildcards.name].seed,
        settings=[f"--profile={GRID.profile}", f"--data={DATA_ROOT}", f"--teacher={TEACHER}",
            f"--device={DEVICE}", f"--precision={text('precision')}", f"--runs={RUN_ROOT}"],
    threads: need("threads", "tuning")
    resources:
        mem_mb=need("mem_mb", "tuning"),
        runtime=need("runtime", "tuning"),
        gpu=int(GPU),
        gpu_share=need("gpu_share", "tuning") if GPU else 0,
    shell:
        "{sys.executable:q} -m stlib.cli teacher {params.variant:q} --seed {params.seed} {params.settings:q} > {log:q} 2>&1"


def of(wildcards):
    return CELLS[f"{wildcards.row}/{wildcards.image}"]


def before(wildcards) -> list:
    """What a run waits for: readable images, and the teacher that several runs share."""
    cell = of(wildcards)
    tuning = [DONE / "tuning" / teacher_of(cell)] if cell.method == "et_stpm" else []
    return [ancient(path) for path in [DONE / "data", *tuning]]


rule run:
    input:
        before,
    output:
        touch(DONE / "runs" / "{row}" / "{image}"),
    log:
        OUT / "{row}" / "{image}.log",
    params:
        cell=lambda wildcards: [
            f"{name}={getattr(of(wildcards), name)}"
            for name in ("method", "variant", "category", "seed", "profile")
        ],
        precision=lambda wildcards: f"precision={of(wildcards).precision or text('precision')}",
        settings=[f"data={'' if DEMO and not text('data') else DATA_ROOT}", f"teacher={TEACHER}",
            f"textures={text('textures')}", f"device={DEVICE}",
            f"records={RECORD_ROOT}", f"runs={RUN_ROOT}"],
        script=Path(workflow.basedir) / "run_cell.py",
    threads: lambda wildcards: need("threads", of(wildcards).method)
    resources:
        mem_mb=lambda wildcards: need("mem_mb", of(wildcards).method),
        runtime=lambda wildcards: need("runtime", of(wildcards).method),
        gpu=int(GPU),
        gpu_share=lambda wildcards: need("gpu_share", of(wildcards).method) if GPU else 0,
    wildcard_constraints:
        row="[^/]+",
        image="[^/]+",
    shell:
        "{sys.executable:q} {params.script:q} {params.cell:q} {params.precision:q} {params.settings:q} > {log:q} 2>&1"
