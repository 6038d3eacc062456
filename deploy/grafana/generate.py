"""Writes deploy/grafana/dashboards/*.json from boards/.

python deploy/grafana/generate.py            # writes them

python deploy/grafana/generate.py --check    # exit code 1 when they are out of step
"""

# ruff: noqa: INP001 - a script
import json
import sys
from pathlib import Path

from boards import BOARDS
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from panels import build

FOLDER = Path(__file__).parent / "dashboards"


def main() -> int:
    """Write or check; the exit code."""
    texts = {
        FOLDER / f"{board.uid}.json": json.dumps(
            build(board).build(), cls=JSONEncoder, indent=1, sort_keys=True
        )
        + "\n"
        for board in BOARDS
    }
    if "--check" in sys.argv[1:]:
        found = {file: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.json")}
        return int(found != texts)
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
