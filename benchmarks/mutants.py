"""Mutation score: the share of small changes of the code that make a unit test fail.

    python benchmarks/mutants.py                                # all modules of SUITES
    python benchmarks/mutants.py tracing/decision.py losses     # modules whose path contains one of the words
    python benchmarks/mutants.py scoring/calibration.py --list  # the mutants, without running a test
    python benchmarks/mutants.py training/loop.py --only 12 30  # two mutants, with the output of their tests
    python benchmarks/mutants.py --sample 40                    # 40 random mutants of each room, the same at each call
    python benchmarks/mutants.py --sample 40 --leave-out 40     # 40 others, for which no test was written

A mutant is a module with one change of its syntax tree (`Mutator`): another comparison or arithmetic operator, a
constant plus 1, `and` for `or`, a negated condition, a removed `not`, `-` or `~`, a function for its counterpart
(SWAPPED_CALLS), a keyword argument or a statement left out. Messages of errors, logging, annotations, decorators and
`TYPE_CHECKING` blocks stay. A mutant is killed if a test of the module's suite fails, or if the suite takes ten times
as long as without a change, and at least a minute; a timeout is printed too, because a busy machine can cause one.
EQUIVALENT lists survivors that cannot change a result, and why.

The suites are the fast unit tests of each module, so the score is a lower bound on that of all tests. Each mutant runs
in a fork of a process that has imported the third-party packages; nothing is written to the source tree.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.abc
import importlib.machinery
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).parents[1]
SOURCES = REPOSITORY / "src/makermark"
MIN_LIMIT_S = 60.0
BASELINE_LIMIT_S = 1800.0  # of a suite without a change, and of one mutant by --only

LOSS_TESTS = ["tests/models/losses/test_loss_formulas.py", "tests/models/losses/test_loss_contract.py"]
SUITES: dict[str, list[str]] = {
    "scoring/calibration.py": ["tests/scoring/test_calibration.py", "tests/scoring/test_thresholds.py"],
    "scoring/open_set_metrics.py": [
        "tests/scoring/test_open_set_metrics.py", "tests/scoring/test_identification.py",
    ],
    "scoring/fusion.py": ["tests/scoring/test_fusion.py"],
    "scoring/frechet.py": ["tests/scoring/test_frechet.py", "tests/scoring/test_corpus_frechet.py"],
    "scoring/evaluation.py": [
        "tests/scoring/test_new_in_test.py", "tests/scoring/test_evaluation_families.py",
        "tests/scoring/test_evaluation.py",
    ],
    "scoring/pairs/error_rates.py": [
        "tests/scoring/pairs/test_equal_error.py", "tests/scoring/pairs/test_score_pairs.py",
    ],
    "scoring/pairs/intervals.py": ["tests/scoring/pairs/test_intervals.py"],
    "scoring/pairs/eer_refinement.py": [
        "tests/scoring/pairs/test_eer_refinement.py", "tests/scoring/pairs/test_score_pairs.py",
    ],
    "tracing/decision.py": ["tests/tracing/test_decision.py"],
    "tracing/calibration.py": ["tests/tracing/test_tracer_calibration.py"],
    "tracing/evaluation.py": ["tests/tracing/test_tracer_evaluation.py"],
    "training/samplers.py": ["tests/training/test_samplers.py"],
    "training/loop.py": ["tests/training/test_schedule.py", "tests/training/test_loop.py"],
    "models/losses/aamsoftmax.py": LOSS_TESTS,
    "models/losses/amsoftmax.py": LOSS_TESTS,
    "models/losses/angularproto.py": LOSS_TESTS,
    "models/losses/base.py": ["tests/models/losses/test_base.py", *LOSS_TESTS],
    "models/losses/ge2e.py": LOSS_TESTS,
    "models/losses/npair.py": LOSS_TESTS,
    "models/losses/proto.py": LOSS_TESTS,
    "models/losses/proxyanchor.py": LOSS_TESTS,
    "models/losses/real_vs_spoof.py": ["tests/models/losses/test_real_vs_spoof.py"],
    "models/losses/refd.py": [*LOSS_TESTS, "tests/models/losses/test_refd.py"],
    "models/losses/softmax.py": LOSS_TESTS,
    "models/losses/subcenter_aamsoftmax.py": LOSS_TESTS,
    "models/losses/triplet.py": LOSS_TESTS,
}  # fmt: skip
# (module, "line of code | change") -> why no result can differ
EQUIVALENT: dict[tuple[str, str], str] = {
    (
        "scoring/evaluation.py",
        "no_train = DetectorInput(np.empty((0, evaluated.embeddings.shape[1])), np.empty((0, len(names))), names)"
        " | 0 -> 1",
    ): "LOGIT_DETECTORS do not read the training set",
    (
        "scoring/frechet.py",
        'seen = subset.labels["system_seen"].to_numpy(dtype=bool) | to_numpy: no dtype',
    ): "the column has no other type",
    (
        "scoring/fusion.py",
        "scaled = [np.sqrt(share) * l2_normalise(part) for share, part in zip(shares, parts, strict=True)]"
        " | zip: no strict",
    ): "the lengths were compared before",
    (
        "scoring/open_set_metrics.py",
        'order = np.argsort(-self.scores, kind="stable") | argsort: no kind',
    ): "rates are taken at the last of equal scores only, where their order does not matter",
    (
        "scoring/open_set_metrics.py",
        'reached = np.einsum("dc,dc->d", rising[middle], weights) >= minimum | GtE -> Gt',
    ): "a whole number is never equal to 0.95 - 1e-12 times another",
    (
        "scoring/pairs/eer_refinement.py",
        "bin_of_curve = np.zeros(curves.count, np.int64) | zeros -> ones",
    ): "only the bins of inexact curves matter, and these are set",
    (
        "scoring/pairs/eer_refinement.py",
        "whole = Bracket(-TOP_KEY, TOP_KEY, 0, 0, int(totals[curve, 1]), int(totals[curve, 0])) | no USub",
    ): "narrow_bracket reads only the trials above a bracket",
    (
        "scoring/pairs/eer_refinement.py",
        "low_key, high_key = np.full(curves.count, 1), np.zeros(curves.count, np.int64)  # low > high: not refined"
        " | 1 -> 2",
    ): "2 is greater than 0 too",
    (
        "scoring/pairs/eer_refinement.py",
        "trials = np.zeros(curves.count, np.int64) | zeros -> ones",
    ): "the trials of other curves do not matter, because one trial needs fewer counters than MIN_FINE_COUNTERS",
    (
        "scoring/pairs/eer_refinement.py",
        "high_key - low_key, trials, max_bytes=FINE_COUNTER_BYTES // (2 * counter.counter_copies) | FloorDiv -> Div",
    ): "a whole number of bytes is within a limit if it is within its whole part",
    (
        "tracing/calibration.py",
        "summary, names = gallery.summary, np.array(gallery.systems, dtype=str) | array: no dtype",
    ): "a list of str gives the same array",
    (
        "tracing/calibration.py",
        'for origin, num_clips in zip(summary["origin"], summary["clips"], strict=True) | True -> False',
    ): "columns of one table have the same length",
    ("tracing/evaluation.py", "return np.array(outcomes, dtype=str) | array: no dtype"): (
        "a list of str gives the same array"
    ),
    (
        "models/losses/triplet.py",
        "bound = positive.maximum(farthest.nextafter(farthest + 1))  # at least one negative is beyond the bound"
        " | 1 -> 2",
    ): "nextafter takes only the direction from it",
    (
        "training/loop.py",
        'log.info("%s runs eagerly: its step cannot be captured as a CUDA graph", type(backbone).__name__)'
        " | statement left out",
    ): "logging",
    ("training/loop.py", "if position < warmup_steps: | Lt -> LtE"): "both formulas give the peak there",
}
PRELOADED = [
    "numpy", "pandas", "pyarrow.parquet", "scipy.stats", "sklearn.linear_model", "sklearn.isotonic", "torch",
    "torch.utils.checkpoint", "pytest", "hypothesis", "yaml", "typer", "soundfile", "soxr", "numba",
    "safetensors.torch",
]  # fmt: skip

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult,
}  # fmt: skip
SWAPPED_CALLS = {
    "min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor", "argmin": "argmax",
    "argmax": "argmin", "minimum": "maximum", "maximum": "minimum", "mean": "sum", "sum": "mean", "log": "log1p",
    "amax": "amin", "amin": "amax", "zeros": "ones", "ones": "zeros",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A mutant of a module that can be changed; `text` is its source line."""

    line: int
    change: str
    text: str


class Mutator(ast.NodeTransformer):
    """Find all mutants of a module, in order, and change the one with number `target`."""

    def __init__(self, source: str, *, target: int = -1) -> None:
        self.mutants: list[Mutant] = []
        self._lines = source.splitlines()
        self._target = target

    def _hits(self, node: ast.expr | ast.stmt, change: str) -> bool:
        self.mutants.append(Mutant(node.lineno, change, self._lines[node.lineno - 1].strip()))
        return len(self.mutants) - 1 == self._target

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.args.defaults = [self.visit(default) for default in node.args.defaults]
        node.args.kw_defaults = [default and self.visit(default) for default in node.args.kw_defaults]
        node.body = [self.visit(statement) for statement in node.body]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [self.visit(statement) for statement in node.body]
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        is_type = (
            isinstance(node.value, ast.Name) and node.value.id[0].isupper() and not node.value.id.isupper()
        )
        return node if is_type else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node
        if self._hits(node, "negated condition"):
            node.test = ast.UnaryOp(ast.Not(), node.test)
        return self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        if self._hits(node, "negated condition"):
            node.test = ast.UnaryOp(ast.Not(), node.test)
        return self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        for index, operator in enumerate(node.ops):
            other = COMPARISONS[type(operator)]
            if self._hits(node, f"{type(operator).__name__} -> {other.__name__}"):
                node.ops[index] = other()
        return self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        other = OPERATORS.get(type(node.op))
        if other and self._hits(node, f"{type(node.op).__name__} -> {other.__name__}"):
            node.op = other()
        return self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        other = OPERATORS.get(type(node.op))
        if other and self._hits(node, f"{type(node.op).__name__} -> {other.__name__}"):
            node.op = other()
        return self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        if self._hits(node, "and <-> or"):
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if self._hits(node, f"no {type(node.op).__name__}"):
            return node.operand
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, bool | int | float):
            value = not node.value if isinstance(node.value, bool) else node.value + 1
            if self._hits(node, f"{node.value} -> {value}"):
                return ast.Constant(value)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        is_log = isinstance(function, ast.Attribute) and getattr(function.value, "id", "") == "log"
        if is_log or name.endswith("Error"):
            return node
        if name in SWAPPED_CALLS and self._hits(node, f"{name} -> {SWAPPED_CALLS[name]}"):
            if isinstance(function, ast.Attribute):
                function.attr = SWAPPED_CALLS[name]
            elif isinstance(function, ast.Name):
                function.id = SWAPPED_CALLS[name]
        dropped = [
            keyword
            for keyword in node.keywords
            if keyword.arg and self._hits(node, f"{name}: no {keyword.arg}")
        ]
        node.keywords = [keyword for keyword in node.keywords if keyword not in dropped]
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if isinstance(node.value, ast.Constant):
            return node
        if not isinstance(node.value, ast.Yield) and self._hits(node, "statement left out"):
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)


def find_mutants(module: str) -> list[Mutant]:
    source = (SOURCES / module).read_text()
    mutator = Mutator(source)
    mutator.visit(ast.parse(source))
    return mutator.mutants


class MutantLoader(importlib.machinery.SourceFileLoader):
    """Load a module with the change number `target`."""

    target = -1

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        source = Path(self.path).read_text()
        tree = Mutator(source, target=self.target).visit(ast.parse(source))
        return compile(ast.fix_missing_locations(tree), self.path, "exec")


class MutantFinder(importlib.abc.MetaPathFinder):
    """Find the module under test before the normal finders do."""

    def __init__(self, module: str, target: int) -> None:
        self._name = "makermark." + module.removesuffix(".py").replace("/", ".")
        self._path, self._target = str(SOURCES / module), target

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        loader = MutantLoader(fullname, self._path)
        loader.target = self._target
        return importlib.machinery.ModuleSpec(fullname, loader, origin=self._path)


def run_suite(module: str, target: int, *, limit_s: float, quiet: bool = True) -> str:
    """Run the suite in a fork on the module with change number `target`: survived, killed or timeout."""
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as machine_code:
        process = os.fork()
        if process == 0:
            status = 3
            try:
                if quiet:
                    null = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(null, 1)
                    os.dup2(null, 2)
                signal.alarm(int(limit_s))
                if "@compiled" in (SOURCES / module).read_text():
                    # Numba takes its cache for valid if only constants or names differ
                    sys.modules["numba"].config.CACHE_DIR = machine_code
                status = _run_tests(module, target)
            finally:
                os._exit(status)
        _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return "timeout" if os.WTERMSIG(status) == signal.SIGALRM else "killed"
    return "survived" if os.WEXITSTATUS(status) == 0 else "killed"


def _run_tests(module: str, target: int) -> int:
    import pytest
    from hypothesis import Phase, settings

    settings.register_profile(
        "mutants",
        database=None,
        derandomize=True,
        deadline=None,
        max_examples=40,
        phases=[Phase.explicit, Phase.generate],
    )
    settings.load_profile("mutants")
    sys.meta_path.insert(0, MutantFinder(module, target))
    sys.dont_write_bytecode = True
    return int(
        pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutants", *SUITES[module]])
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="run the modules whose path contains one of these")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument(
        "--only",
        type=int,
        nargs="+",
        metavar="N",
        help="run the mutants of the first module with these numbers and show the output of their tests",
    )
    parser.add_argument("--sample", type=int, metavar="N", help="run N random mutants of each room")
    parser.add_argument(
        "--leave-out",
        type=int,
        default=0,
        metavar="N",
        help="with --sample: none of the mutants of `--sample N`",
    )
    arguments = parser.parse_args()
    modules = [
        name for name in SUITES if not arguments.words or any(word in name for word in arguments.words)
    ]
    os.chdir(REPOSITORY)
    sys.path.insert(0, str(REPOSITORY / "src"))
    if arguments.list:
        for module in modules:
            for number, mutant in enumerate(find_mutants(module)):
                print(f"{module} {number}: line {mutant.line}: {mutant.change}: {mutant.text}")
        return
    for name in PRELOADED:
        importlib.import_module(name)
    for number in arguments.only or []:
        print(
            modules[0],
            number,
            run_suite(modules[0], number, limit_s=BASELINE_LIMIT_S, quiet=False),
            flush=True,
        )
    if arguments.only:
        return
    rows = []
    limits_s: dict[tuple[str, ...], float] = {}
    for module, numbers in choose_mutants(modules, arguments.sample, leave_out=arguments.leave_out).items():
        start = time.perf_counter()
        if (suite := tuple(SUITES[module])) not in limits_s:
            if run_suite(module, -1, limit_s=BASELINE_LIMIT_S) != "survived":
                raise SystemExit(f"{module}: its tests fail without a change: {' '.join(suite)}")
            limits_s[suite] = max(MIN_LIMIT_S, 10 * (time.perf_counter() - start))
        mutants, killed, equivalent = find_mutants(module), 0, 0
        for number in numbers:
            mutant = mutants[number]
            outcome = run_suite(module, number, limit_s=limits_s[suite])
            killed += outcome in ("killed", "timeout")
            reason = (
                None if outcome == "killed" else EQUIVALENT.get((module, f"{mutant.text} | {mutant.change}"))
            )
            equivalent += outcome == "survived" and reason is not None
            if outcome != "killed":
                print(
                    f"{module} {number}: {outcome}: line {mutant.line}: {mutant.change}: {mutant.text}"
                    + (f" (equivalent: {reason})" if reason else ""),
                    flush=True,
                )
        rows.append((module, len(numbers), killed, equivalent))
        print(
            f"# {module}: {killed} of {len(numbers)} killed, {equivalent} equivalent, "
            f"{time.perf_counter() - start:.0f} s",
            flush=True,
        )
    print_table(rows)


def choose_mutants(modules: Sequence[str], sample: int | None, *, leave_out: int = 0) -> dict[str, list[int]]:
    """Return the numbers of the mutants of each module: all, or `sample` random ones of each room.

    With `leave_out`, these are none of the mutants that a sample of that size holds.
    """
    mutants = [(module, number) for module in modules for number in range(len(find_mutants(module)))]
    if sample is not None:
        rooms: dict[str, list[tuple[str, int]]] = {}
        for module, number in mutants:
            rooms.setdefault(name_room(module), []).append((module, number))
        mutants = []
        for room, of_room in rooms.items():
            left_out = draw_sample(of_room, leave_out, seed=room) if leave_out else []
            others = [mutant for mutant in of_room if mutant not in left_out]
            seed = f"{room} without {leave_out}" if leave_out else room
            mutants += draw_sample(others, sample, seed=seed)
    chosen: dict[str, list[int]] = {}
    for module, number in mutants:
        chosen.setdefault(module, []).append(number)
    return chosen


def draw_sample(mutants: Sequence[tuple[str, int]], size: int, *, seed: str) -> list[tuple[str, int]]:
    """Return `size` random mutants, or all if there are fewer, sorted."""
    return sorted(random.Random(seed).sample(mutants, min(size, len(mutants))))


def name_room(module: str) -> str:
    """Return the room of a module, which is its folder."""
    return module.rpartition("/")[0]


def print_table(rows: Sequence[tuple[str, int, int, int]]) -> None:
    """Print the counts of each room; the score leaves out equivalent mutants and has its 95 % Wilson interval."""
    from scipy.stats import binomtest

    rooms = {}
    for module, mutants, killed, equivalent in rows:
        room = name_room(module)
        total = rooms.get(room, (0, 0, 0))
        rooms[room] = (total[0] + mutants, total[1] + killed, total[2] + equivalent)
    print("\n| room | mutants | killed | equivalent | score |\n|---|---:|---:|---:|---:|")
    for room, (mutants, killed, equivalent) in rooms.items():
        low, high = binomtest(killed, mutants - equivalent).proportion_ci(method="wilson")
        score = f"{100 * killed / (mutants - equivalent):.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
        print(f"| `{room}` | {mutants} | {killed} | {equivalent} | {score} |")


if __name__ == "__main__":
    main()
