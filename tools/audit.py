"""Reports known vulnerabilities of what the locks name, from pip-audit; without an answer it fails.

python tools/audit.py requirements.lock ...        exit status: 0 none known, 1 some, 2 unknown
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from sft.common import python_version  # noqa: F401, I001  # before the others: an older Python can't import them

import json
import subprocess

_COMMAND = (sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--progress-spinner=off")


def verdict(answer: str) -> tuple[int, list[str]]:
    """Exit status and lines for `answer`, the JSON that pip-audit printed; empty when it could not ask."""
    try:
        packages = json.loads(answer)["dependencies"]
    except (ValueError, LookupError, TypeError):
        return 2, ["error: pip-audit could not ask pypi.org for known vulnerabilities. This needs a network"]
    known = [
        f"{package['name']} {package['version']}: {each['id']}, fixed in {' or '.join(each['fix_versions']) or '-'}"
        for package in packages
        for each in package.get("vulns", [])
    ]
    unasked = [package["name"] for package in packages if "skip_reason" in package]
    if unasked or not packages:
        known.append(f"error: this registry can't tell the known vulnerabilities of {', '.join(unasked) or 'anything'}")
        return 2, known
    return (1, known) if known else (0, [f"{len(packages)} packages, no known vulnerability"])


def main(locks: list[str]) -> int:
    """Ask about each of the locks."""
    worst = 0
    for lock in locks:
        asked = subprocess.run([*_COMMAND, "--format=json", "-r", lock], capture_output=True, text=True, check=False)
        status, lines = verdict(asked.stdout)
        for line in lines:
            print(f"{lock}: {line}", file=sys.stderr if status else sys.stdout)
        worst = max(worst, status)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
