"""The committed notebooks as files: their shape, their parameters, and what they may carry."""

import ast
import re

import nbformat
import pytest

from stlib.paths import ROOT
from study.parameters import (
    AblationParameters,
    CompareParameters,
    EpochParameters,
    ParameterError,
    Parameters,
)

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODELS = {
    "run": Parameters,
    "compare": CompareParameters,
    "ablation": AblationParameters,
    "teacher_epochs": EpochParameters,
}
LOGIC = (
    ast.For, ast.While, ast.If, ast.Try, ast.With, ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.BinOp,
)  # fmt: skip
PLOTS = re.compile(
    r"^(figures|curves)\.|notebook\.(samples|gallery|teacher_features|side_by_side)\(", re.MULTILINE
)
ABSOLUTE = re.compile(r"""(?:^|["'\s>=(])(?:/[\w.-]+){2,}|\b[A-Z]:\\\\""")


def tags(cell):
    return cell.metadata.get("tags", [])


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def notebook(request):
    book = nbformat.read(request.param, as_version=4)
    nbformat.validate(book)
    return book


@pytest.fixture
def model(request, notebook):
    return MODELS[request.node.callspec.params["notebook"].stem]


@pytest.fixture
def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_cells_call_and_do_not_compute(code):
    for cell in code:
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, LOGIC)], cell.source


def test_one_parameters_cell_with_the_names_of_the_model(code, model):
    (cell,) = [cell for cell in code if "parameters" in tags(cell)]
    assert tags(cell) == ["parameters", "remove-cell"]
    assigned = [node.targets[0].id for node in ast.parse(cell.source).body]
    assert sorted(assigned) == sorted(model.model_fields)
    comments = [line.partition("  # ")[2] for line in cell.source.splitlines()]
    assert all(comments)
    assert not [text for text in comments if "=" in text]  # papermill complains about it at every run
    assert code[0] is cell


def test_defaults_are_the_demo(code, model):
    values = {}
    exec(code[0].source, values)
    shown = model.model_validate({name: values[name] for name in model.model_fields})
    assert (shown.seed, shown.profile, shown.device) == (0, "demo", "cpu")
    # the profile's own: a default of the demo would follow `-p profile paper` into its runs
    assert (shown.data, shown.teacher, shown.runs) == ("", "", "")
    assert shown.records == ("results/records" if model is CompareParameters else "")


def test_a_misspelt_parameter_stops_the_first_cell(code):
    names = {}
    exec(code[0].source, names)
    exec("catgeory = 'grass'", names)  # what papermill injects for -p catgeory grass
    with pytest.raises(ParameterError, match="did you mean category"):
        exec(code[1].source, names)


def test_only_known_tags(code):
    known = {"parameters", "remove-cell", "hide-input", "nbval-check-output", "remove-stderr"}
    assert {tag for cell in code for tag in tags(cell)} <= known


def test_every_plot_has_the_text_for_those_who_cannot_see_it(code):
    plots = [cell for cell in code if PLOTS.search(cell.source)]
    assert plots
    for cell in plots:
        assert cell.metadata["mystnb"]["image"]["alt"], cell.source
        assert "hide-input" in tags(cell)


def test_outputs_are_those_of_checked_cells_without_pictures_and_places_on_a_disk(code):
    for cell in code:
        assert bool(cell.outputs) == ("nbval-check-output" in tags(cell)), cell.source
        for output in cell.outputs:
            assert output.output_type == "execute_result"
            assert not [kind for kind in output.data if kind.startswith("image/")]
            assert not ABSOLUTE.search("".join(output.data.values())), cell.source


def test_absolute_paths_are_recognised():
    assert ABSOLUTE.search("<td>/home/someone/x</td>")
    assert not ABSOLUTE.search('</td></tr><th scope="row">test/good</th><td>build/records</td>')


def test_prose_states_no_result(notebook):
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert not re.search(r"\d\.\d", prose)
