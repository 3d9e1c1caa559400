"""`make snapshots BASE=<commit>`: does this tree compute the same bits as that commit?

    python tests/snapshots/compare.py 39c3277 [--only TEXT] [--backend reference cpp]

The commit is checked out and built under build/snapshots/, and its hashes are kept there. The working tree is hashed in
a process of its own, as the commit is. Exit status 1, and the names of what differs, if any hash differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "snapshots"
CASES = Path(__file__).with_name("cases.py")


def run(command: list[str], cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, text=True, check=False, capture_output=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}\nexit status {done.returncode}")
    return done.stdout


def checkout(commit: str) -> Path:
    """The commit's files with its extension built."""
    folder = KEPT / commit
    if not (folder / "built").exists():
        folder.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
        run([sys.executable, "setup.py", "build_ext", "--inplace"], folder)
        (folder / "built").touch()
    return folder


def hashes(tree: Path, out: Path, args: argparse.Namespace) -> dict[str, dict[str, dict[str, str]]]:
    command = [sys.executable, str(CASES), "--out", str(out), "--only", args.only, "--backend", *args.backend]
    run(command, tree, PYTHONPATH=str(tree), OMP_NUM_THREADS="1")
    return json.loads(out.read_text(encoding="utf-8"))


def differences(before: dict[str, dict[str, dict[str, str]]], after: dict[str, dict[str, dict[str, str]]]) -> list[str]:
    """What was hashed before and has another hash now, or none."""
    return [
        f"{backend}: {case}: {name}"
        for backend, case_hashes in before.items()
        for case, values in case_hashes.items()
        for name, value in values.items()
        if after[backend].get(case, {}).get(name) != value
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--backend", nargs="+", default=["reference", "cpp"])
    args = parser.parse_args()
    commit = run(["git", "rev-parse", "--verify", f"{args.commit}^{{commit}}"], ROOT).strip()
    kept = KEPT / f"{commit}-{'-'.join(args.backend)}-{args.only.replace('/', '.')}.json"
    before = json.loads(kept.read_text()) if kept.exists() else hashes(checkout(commit), kept, args)
    after = hashes(ROOT, KEPT / "tree.json", args)
    changed = differences(before, after)
    count = sum(len(values) for cases in before.values() for values in cases.values())
    print(*changed, sep="\n")
    print(f"{count - len(changed)} of {count} hashes equal those of {commit[:7]}")
    sys.exit(1 if changed else 0)


if __name__ == "__main__":
    main()
