"""The README's example prints what the README says; its table of commands names commands that exist."""

import contextlib
import io
import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_example_prints_what_the_readme_says():
    example, printed = re.search(r"```python\n(.*?)```\s*prints\s*```text\n(.*?)```", README.read_text(), re.S).groups()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
    assert output.getvalue() == printed


def test_the_commands_in_the_table_exist():
    from minires import cli

    named = {re.split(r"[ `]", row)[1] for row in re.findall(r"^\| `(minires \w+)", README.read_text(), re.M)}
    assert named == {command.callback.__name__ for command in cli.app.registered_commands}


def test_the_files_that_the_readme_names_exist():
    root = README.parent
    for name in re.findall(r"`(\d\d_\w+\.py)`", README.read_text()):
        assert (root / "tutorials" / name).is_file(), name
    for name in re.findall(r"`((?:functional|models|convolution)/\w+\.py)`", README.read_text()):
        folder = root / ("kernels/minires_kernels" if name.startswith("convolution") else "minires")
        assert (folder / name).is_file(), name
