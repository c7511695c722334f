# Which cells are to be run, and where things are.


def listed(name: str) -> list[str]:
    """A setting such as 'stpm,destseg' as a list."""
    return str(config[name]).replace(",", " ").split()


def place(name: str, default: Path) -> Path:
    """A folder of the settings; relative ones start at the repository root."""
    return ROOT / config[name] if config[name] else default


GRID = read_grid(config["grid"], place("grids", GRIDS))
DEMO = GRID.profile == "demo"
HERE = places(GRID.profile)
DATA_ROOT, RECORD_ROOT, RUN_ROOT = (place(name, getattr(HERE, name)) for name in ("data", "records", "runs"))
OUT = RUN_ROOT / GRID.profile
DONE = RUN_ROOT / ".done" / GRID.profile
TEACHER = config["teacher"] or HERE.teacher
if (ROOT / TEACHER).is_file():
    TEACHER = str(ROOT / TEACHER)
GPU = str(config["device"]).startswith("cuda")
require_precision(config["precision"], str(config["device"]))

CELLS = {
    str(cell.path.with_suffix("").relative_to(GRID.profile)): cell
    for cell in select_cells(GRID.cells(), listed("methods"), listed("categories"), [int(s) for s in listed("seeds")])
}
TUNINGS = teachers(GRID.cells())


def marker(cell) -> str:
    return str(DONE / "runs" / cell.path.with_suffix("").relative_to(GRID.profile))


def runnable(cell) -> bool:
    """Whether the images are there. Without any dataset all cells are planned, and the data check stops them."""
    return DEMO or not DATA_ROOT.is_dir() or (DATA_ROOT / cell.category).is_dir()


def to_run() -> list:
    """The cells without a finished record; says how many there are of each kind."""
    marked = {cell for cell in CELLS.values() if Path(marker(cell)).exists()}  # before the records are read
    states = {cell: state(cell, RECORD_ROOT) for cell in CELLS.values()}
    unfinished = [cell for cell in CELLS.values() if states[cell] != "finished"]
    for cell in marked.intersection(unfinished):
        Path(marker(cell)).unlink(missing_ok=True)
    cells = [cell for cell in unfinished if runnable(cell)]
    kinds = ", ".join(
        f"{n} {kind}"
        for kind in ("finished", "failed", "damaged", "missing")
        if (n := list(states.values()).count(kind))
    )
    logger.info(f"grid {config['grid']}: {len(CELLS)} runs, {kinds or 'none'}; {len(cells)} to run")
    if len(cells) < len(unfinished):
        logger.warning(f"{len(unfinished) - len(cells)} runs are left out: no images in {DATA_ROOT}")
    return cells


# A job reads this file again, but plans nothing.
TO_RUN = to_run() if workflow.is_main_process else []
