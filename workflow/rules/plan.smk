# Which cells are to be run, and where things are.


# A misspelt setting would silently leave the default in force.
if strange := config.keys() - load_configfile(SETTINGS).keys():
    raise WorkflowError(f"no setting is called '{min(strange)}': there are {', '.join(load_configfile(SETTINGS))}")


def text(name: str) -> str:
    """A setting as text; Snakemake makes None of an empty one on the command line, and numbers of digits."""
    return "" if config[name] is None else str(config[name])


def listed(name: str) -> list[str]:
    """A setting such as 'stpm,destseg' as a list."""
    return text(name).replace(",", " ").split()


def place(name: str, default: Path) -> Path:
    """A folder of the settings; relative ones start at the repository root."""
    return ROOT / text(name) if text(name) else default


GRID = read_grid(text("grid"), place("grids", GRIDS))
DEMO = GRID.profile == "demo"
HERE = places(GRID.profile)
DATA_ROOT, RECORD_ROOT, RUN_ROOT = (place(name, getattr(HERE, name)) for name in ("data", "records", "runs"))
OUT = RUN_ROOT / GRID.profile
DONE = RUN_ROOT / ".done" / GRID.profile
try:
    TEACHER = named_teacher(text("teacher") or HERE.teacher)
except ValueError as error:
    raise WorkflowError(f"teacher={error}") from error
TEXTURES = place("textures", HERE.textures)
if text("textures") and not TEXTURES.is_dir():
    raise WorkflowError(f"textures={TEXTURES}: no such folder; `stlib data download dtd` fetches DTD's")
DEVICE = text("device")
if not re.fullmatch(r"cpu|cuda(:\d+)?", DEVICE):
    raise WorkflowError(f"device={DEVICE}: choose cpu, cuda or cuda:N")
GPU = DEVICE != "cpu"
require_precision(text("precision"), DEVICE)
ACCEPT = text("accept_gaps").lower()
if ACCEPT not in ("yes", "true", "no", "false"):
    raise WorkflowError(f"accept_gaps={ACCEPT}: choose yes or no")

CELLS = {
    str(cell.path.with_suffix("").relative_to(GRID.profile)): cell
    for cell in select_cells(
        GRID.cells(),
        listed("methods"),
        listed("categories"),
        [int(seed) if seed.isdecimal() else seed for seed in listed("seeds")],
    )
}
TUNINGS = teachers(GRID.cells())


def marker(cell) -> str:
    return str(DONE / "runs" / cell.path.with_suffix("").relative_to(GRID.profile))


def lacks(cell) -> str:
    """What keeps a cell from being run, in words; '' if nothing does.

    Without any dataset all cells are planned, and the data check stops them.
    """
    from stlib.methods import METHODS  # takes seconds, and jobs do not ask

    if DEMO or not DATA_ROOT.is_dir():
        return ""
    if not (DATA_ROOT / cell.category).is_dir():
        return f"no images in {DATA_ROOT}"
    return f"no textures in {TEXTURES}" if METHODS[cell.method].needs_textures and not TEXTURES.is_dir() else ""


def own_parts() -> list[str]:
    """Categories to be run whose images are neither MVTec AD's nor the demo's."""
    from stlib.data.images import DatasetError
    from stlib.data.layout import scan

    found = []
    for name in sorted({cell.category for cell in CELLS.values() if (DATA_ROOT / cell.category).is_dir()}):
        with suppress(DatasetError):  # which the data check tells
            found += [name] if scan(DATA_ROOT, name).dataset == "other" else []
    return found


def to_run() -> list:
    """The cells without a finished record; says how many there are of each kind."""
    if own := own_parts():  # their records lie elsewhere: every run would be made, and called missing
        raise WorkflowError(
            f"{DATA_ROOT / own[0]} holds no images of MVTec AD's {own[0]}: of own data make runs by a loop of "
            "`stlib run` (book/own_parts.md), or choose others by categories="
        )
    marked = {cell for cell in CELLS.values() if Path(marker(cell)).exists()}  # before the records are read
    states = {cell: state(cell, RECORD_ROOT) for cell in CELLS.values()}
    unfinished = [cell for cell in CELLS.values() if states[cell] != "finished"]
    for cell in marked.intersection(unfinished):
        Path(marker(cell)).unlink(missing_ok=True)
    reasons = {cell: lacks(cell) for cell in unfinished}
    cells = [cell for cell in unfinished if not reasons[cell]]
    kinds = ", ".join(
        f"{n} {kind}"
        for kind in ("finished", "failed", "damaged", "missing")
        if (n := list(states.values()).count(kind))
    )
    logger.info(f"grid {text('grid')}: {len(CELLS)} runs, {kinds or 'none'}; {len(cells)} to run")
    for reason, count in Counter(filter(None, reasons.values())).items():
        logger.warning(f"{count} runs are left out: {reason}")
    return cells


# A job reads this file again, but plans nothing.
TO_RUN = to_run() if workflow.is_main_process else []
