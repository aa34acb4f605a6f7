"""How many annotated arguments are `Any`: `python tests/project/any_share.py [--list]`.

An annotation counts as Any if it is Any, alone or beside None (`Any`, `Any | None`, `Optional[Any]`); `dict[str, Any]` speaks
of JSON and does not. Counted are the arguments of every function outside of tests, without `*args` and `**kwargs`.
"""

import ast
import collections
import pathlib
import subprocess
import sys


def is_any(annotation: ast.expr) -> bool:
    """Whether an annotation says nothing about the value."""
    parts = {part.strip() for part in ast.unparse(annotation).removeprefix('Optional[').rstrip(']').split('|')}
    return 'Any' in parts or 'typing.Any' in parts


def arguments(source: str) -> list[tuple[int, str, bool]]:
    """(line, name, is Any) of every annotated argument in a source text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                if argument.annotation is not None:
                    found.append((argument.lineno, argument.arg, is_any(argument.annotation)))
    return found


def rows(root: pathlib.Path) -> list[tuple[str, int, str, bool]]:
    """(file, line, name, is Any) of every annotated argument of a checkout, tests left out."""
    listing = subprocess.run(['git', 'ls-files', '*.py'], cwd=root, capture_output=True, text=True)
    if listing.returncode == 0 and listing.stdout:
        names = [name for name in listing.stdout.splitlines() if (root / name).exists()]
    else:
        names = [path.relative_to(root).as_posix() for path in root.rglob('*.py') if '.venv' not in path.parts]
    return [
        (name, *argument)
        for name in names
        if not name.startswith('tests/')
        for argument in arguments((root / name).read_text(encoding='utf-8'))
    ]


def main() -> None:
    """Print the share of Any, and with --list each of them."""
    found = rows(pathlib.Path(__file__).resolve().parents[2])
    told = [row for row in found if row[3]]
    if '--list' in sys.argv:
        print(*(f'{name}:{line}: {argument}' for name, line, argument, _ in told), sep='\n')
        print(collections.Counter(argument for _, _, argument, _ in told).most_common(30))
    print(f'{len(told)} of {len(found)} annotated arguments are Any: {len(told) / len(found):.1%}')


if __name__ == '__main__':
    main()
