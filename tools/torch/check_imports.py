#!/usr/bin/env python3
"""Proves that `syncdiff models import` gives networks whose outputs are PyTorch's.

    python3 -m venv /tmp/torch && /tmp/torch/bin/pip install torch==2.11.0 numpy
    /tmp/torch/bin/python tools/torch/check_imports.py              # official sizes: 10 GB of disk, 8 GB of memory
    /tmp/torch/bin/python tools/torch/check_imports.py --goldens    # are these PyTorch networks the original ones?
    /tmp/torch/bin/python tools/torch/check_imports.py --fixtures   # write the small checkpoints that are committed

Without an option: writes a checkpoint of each network in the official size and form with random weights (state dicts
inside lightning, fairseq and Wav2Lip dictionaries, foreign classes, both forms of file), has `syncdiff models import`
take the networks out of it, and runs the test `golden_import`, which loads them and compares their outputs with those
that PyTorch computed. `networks/` holds the PyTorch side; `--goldens` compares it with recorded outputs of the original
implementations (`SYNCDIFF_GOLDENS`). Of S3FD there are none: it stands on its layer table.

Nothing here is needed to build or to test; the small checkpoints are compared by every `cargo test`.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
from cases import CASES, cases
from check_goldens import check
from store import default_goldens, write

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "crates" / "syncdiff-model" / "tests" / "fixtures" / "imports"
# Largest error allowed, as a share of the largest value of an output: some hundred roundings of f32.
TOLERANCE = 2e-5


def save(case, folder):
    """The checkpoint or its table, the configurations, inputs and outputs of one case; the path of the checkpoint."""
    folder.mkdir(parents=True)
    write(folder / "io.safetensors", case.io)
    made = {"torch": torch.__version__.split("+")[0], "tolerance": TOLERANCE, "networks": case.networks}
    if case.table is not None:
        made["weight_generator"] = {"seed": case.seed, "tensors": case.table}
    else:
        made["checkpoint"] = case.file
        case.save(folder / case.file)
    text = json.dumps(made, separators=(",", ":")).replace('{"name"', '\n{"name"')
    (folder / "case.json").write_text(text + "\n")
    return folder / case.file


def write_fixtures():
    if FIXTURES.is_dir():
        shutil.rmtree(FIXTURES)
    for case in cases("small"):
        save(case, FIXTURES / case.name)
        print((FIXTURES / case.name).relative_to(ROOT))


def check_official(folder, syncdiff, only):
    for case in cases("official", only):
        checkpoint = save(case, folder / case.name)
        for layout in case.networks:
            out = checkpoint.parent / layout
            command = [syncdiff, "models", "import", checkpoint, "--layout", layout, "--out", out]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
            print(said)
            assert "as in the official network" in said
        checkpoint.unlink()
    command = ["cargo", "test", "--release", "--locked", "--workspace", "--test", "golden_import", "--", "--nocapture"]
    environment = os.environ | {"SYNCDIFF_IMPORTS": str(folder)}
    subprocess.run([*command, "official_sizes"], check=True, cwd=ROOT, env=environment)


def main():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--goldens", nargs="?", type=pathlib.Path, const=default_goldens(), metavar="DIR")
    parser.add_argument("--fixtures", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], choices=CASES, metavar="CASE", help="of the official sizes")
    parser.add_argument("--syncdiff", type=pathlib.Path, default=target / "release" / "syncdiff")
    parser.add_argument("--folder", type=pathlib.Path, help="for the networks, instead of a temporary one; is kept")
    options = parser.parse_args()
    if options.goldens:
        check(options.goldens)
    elif options.fixtures:
        write_fixtures()
    elif not options.syncdiff.is_file():
        sys.exit(f"error: {options.syncdiff} is absent; build it with `cargo build --release --workspace`")
    elif options.folder:
        check_official(options.folder.resolve(), options.syncdiff, options.only)
    else:
        with tempfile.TemporaryDirectory() as folder:
            check_official(pathlib.Path(folder), options.syncdiff, options.only)


if __name__ == "__main__":
    main()
