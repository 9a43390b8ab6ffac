"""Make a trained model one that ships: its card and thresholds are set, the weights stay as they are.

    python benchmarks/ship_model.py runs/nuclei/best.safetensors changes.yaml -o medmaskrcnn/weights/nuclei.safetensors

``changes.yaml`` holds what differs from the model's own settings, in their structure:

    card: {made_by: "medmaskrcnn train ...", scores: {"47 held-out images": "..."}}
    inference: {score: 0.4}
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from medmaskrcnn.hub.model_file import read_model, save_model
from medmaskrcnn.models.build import build_model
from medmaskrcnn.settings import ModelFileSettings

MOST_MB = 12


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """``old`` with what ``new`` says instead, to any depth; a key that ``old`` lacks is taken."""
    both = {key: merged(old[key], value) if isinstance(old.get(key), dict) else value for key, value in new.items()}
    return {**old, **both}


def main() -> None:
    """Write the file, and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("changes", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    network, settings = read_model(options.model)
    changes = yaml.safe_load(options.changes.read_text(encoding="utf-8"))
    changed = ModelFileSettings.model_validate(merged(settings.model_dump(), changes))
    same = build_model(changed.model)  # thresholds are part of the network's settings
    same.load_state_dict(network.state_dict())
    save_model(same, changed, options.out)
    megabytes = options.out.stat().st_size / 1e6
    print(f"{options.out}: {megabytes:.1f} MB")
    if megabytes > MOST_MB:
        raise SystemExit(f"more than the {MOST_MB} MB that a model may have in the wheel")


if __name__ == "__main__":
    main()
