"""Measure pik against its peers: `python -m bench.run`, from the top of the source tree.

A peer and pik run in turn (A B A B ...) as whole processes, after one warm-up of each. The warm-up is the run whose
memory is sampled, so that sampling costs the timed ones nothing; a case without a warm-up is timed and sampled at once.
"""

import argparse
import compileall
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.case import Case, Step
from bench.cases import CASES
from bench.measure import CommandFailed, Run, run
from bench.report import Result, table, update
from bench.workspace import DEFAULT_ROWS, Workspace

PAGE = Path("docs/benchmarks.md")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def once(step: Step, *, sample: bool) -> Run:
    step.before()
    os.sync()  # what preparing the run wrote is not the run's to flush
    result = run(step.argv, sample=sample, codes=step.codes)
    step.check(result.stdout)
    return result


def taken(case: Case, result: Run) -> float:
    """The seconds that the case is about."""
    return result.cpu_seconds if case.cpu else result.seconds


def counted(case: Case, step: Step, result: Run) -> float:
    """The seconds that the case is about, without those of the part that is not counted."""
    return taken(case, result) - (taken(case, once(step.less, sample=False)) if step.less else 0)


def measure(case: Case, workspace: Workspace, pairs: int) -> Result:
    result = Result(case, case.lines or workspace.rows)
    say(f"{case.name}: {case.what}" + (f" against {case.against}" if case.against else ""))
    try:
        pair = case.build(workspace)
        for number in range(0 if case.warm_up else 1, (case.pairs or pairs) + 1):
            sample = number == (0 if case.warm_up else 1)
            peer = once(pair.peer, sample=sample) if pair.peer else None
            ours = once(pair.ours, sample=sample)
            if sample:
                result.peer_mib, result.our_mib = (peer.peak_mib if peer else None), ours.peak_mib
            if number > 0:
                result.ours.append(counted(case, pair.ours, ours))
                result.peer += [taken(case, peer)] if peer else []
            label = f"pair {number}" if number else "warm-up"
            say(
                f"  {label}: "
                + (f"peer {taken(case, peer):.2f} s, " if peer else "")
                + f"pik {(result.ours[-1] if number else taken(case, ours)):.2f} s"
            )
    except CommandFailed as problem:
        result.failure = str(problem)
        say(f"  FAILED: {problem}")
    return result


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Measure pik against its peers.")
    parser.add_argument("--rows", type=int, default=DEFAULT_ROWS, help="lines of the input (default 1000000)")
    parser.add_argument("--pairs", type=int, default=3, help="timed pairs of runs a case (default 3)")
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=[case.name for case in CASES], help="this case; repeatable"
    )
    parser.add_argument("--deep", action="store_true", help="the long cases too: 5 and 10 million lines")
    parser.add_argument("--work", type=Path, default=Path(".bench"), help="where inputs and stores go (default .bench)")
    parser.add_argument("--pik", default=str(Path(sys.executable).with_name("pik")), help="the pik command to measure")
    parser.add_argument("--no-docs", action="store_true", help=f"leave {PAGE} as it is")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """0 if all cases met their bar, 1 if one did not or failed."""
    args = parse(argv)
    cases = [case for case in CASES if (case.name in args.only if args.only else args.deep or not case.deep)]
    compileall.compile_dir("pik", quiet=1)  # as pip does when it installs a package; the peers' are compiled, too
    workspace = Workspace(args.work.resolve(), args.rows, shlex.split(args.pik), say)
    try:
        results = [measure(case, workspace, args.pairs) for case in cases]
    finally:
        workspace.clean()
    print(table(results))
    if not args.no_docs:
        dropped = update(PAGE, results)
        if dropped:
            say(f"{PAGE}: dropped what another machine or other versions had measured: {', '.join(dropped)}")
    return int(any(result.verdict != "ok" for result in results))


if __name__ == "__main__":
    sys.exit(main())
