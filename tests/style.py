"""Figures of how the library reads: `make style` prints them, tests/test_style.py holds them.

They are: names that say nothing of their thing, docstrings that begin without a verb, comments,
and how much a line and a function do.
"""

import ast
import io
import statistics
import sys
import tokenize
from collections import Counter
from pathlib import Path

HOUSE_WORDS = set(
    "told said each found given made kept drawn asked own how what who of there known shown seen "
    "wanted whole place places way ways turn turns noted taken done meant".split()
)
OPENINGS = ("Of ", "What ", "Where ", "Whether ", "Have ", "How ", "So ", "Without ")
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
LIBRARY = Path(__file__).resolve().parent.parent / "nbs_lib"


def measure(root: Path) -> dict[str, float]:
    """Return the figures of all modules below a folder, by name."""
    total: Counter[str] = Counter()
    functions: list[int] = []
    modules: list[int] = []
    for path in sorted(root.rglob("*.py")):
        source = path.read_text("utf-8")
        tree = ast.parse(source)
        modules.append(len(source.splitlines()))
        functions += function_lengths(tree)
        total += count_lines(source) + count_docstrings(tree) + count_names(tree)
        total["nodes"] += sum(1 for _ in ast.walk(tree))
        total["nested comprehensions"] += nested_comprehensions(tree)
    folders = Counter(path.parent for path in root.rglob("*.py") if path.name != "__init__.py")
    nine_tenths = statistics.quantiles([*functions, *functions], n=10)[-1]
    return {
        "house words per 1,000 lines": round(1000 * total["house words"] / total["lines"], 1),
        "docstrings that begin Of, What, Where, ...": total["openings"],
        "docstrings": total["docstrings"],
        "comments, % of lines": round(100 * total["comments"] / total["lines"], 1),
        "AST nodes": total["nodes"],
        "AST nodes per code line": round(total["nodes"] / total["code"], 2),
        "nested comprehensions": total["nested comprehensions"],
        "function lines, median": statistics.median(functions),
        "function lines, 90 %": round(nine_tenths),
        "function lines, longest": max(functions),
        "module lines, longest": max(modules),
        "files in a folder, most": max(folders.values()),
        "lines": total["lines"],
    }


def count_lines(source: str) -> Counter[str]:
    """Count lines, lines of code and lines with a comment. A docstring's lines are not code."""
    comments, code = set(), set()
    blank = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in blank:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            code.difference_update(range(node.lineno, node.end_lineno + 1))
    lines = len(source.splitlines())
    return Counter({"lines": lines, "code": len(code), "comments": len(comments)})


def count_docstrings(tree: ast.Module) -> Counter[str]:
    """Count docstrings, and those that begin with one of OPENINGS."""
    texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, DOCUMENTED)]
    texts = [text for text in texts if text]
    return Counter(
        {"docstrings": len(texts), "openings": sum(text.startswith(OPENINGS) for text in texts)}
    )


def count_names(tree: ast.Module) -> Counter[str]:
    """Count the identifiers, at every place they stand, that are one of HOUSE_WORDS."""
    names = []
    for node in ast.walk(tree):
        names += [getattr(node, field, None) for field in ("id", "attr", "arg", "name")]
    return Counter(
        {
            "house words": sum(
                isinstance(name, str) and name.strip("_") in HOUSE_WORDS for name in names
            )
        }
    )


def nested_comprehensions(tree: ast.Module) -> int:
    """Count comprehensions within a comprehension."""
    nested = set()
    for outer in ast.walk(tree):
        if isinstance(outer, COMPREHENSIONS):
            nested.update(
                inner
                for inner in ast.walk(outer)
                if inner is not outer and isinstance(inner, COMPREHENSIONS)
            )
    return len(nested)


def function_lengths(tree: ast.Module) -> list[int]:
    """Return the lines of each function, with its docstring."""
    return [
        node.end_lineno - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


if __name__ == "__main__":
    for folder in [Path(argument) for argument in sys.argv[1:]] or [LIBRARY]:
        print(folder.name)
        for name, value in measure(folder).items():
            print(f"  {name:<44}{value:>12,}")
