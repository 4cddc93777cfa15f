#!/usr/bin/env python3
"""Runs `syncdiff generate` on every clip of a manifest's splits, each driven by its own sound, and checks the output.

For each clip: exit status, number of frames, frame rate, the sound's samples, length of the picture against the source,
and that every pixel which differs from the source before encoding lies in one rectangle that covers a part of the frame
only. Appends one line a clip to OUT/clips.jsonl as it goes (clips that stand there are not run again) and prints a
summary in Markdown. Needs ffmpeg and ffprobe; nothing from PyPI.

    tools/check_clips.py --program target/release/syncdiff --manifest ../shared/data/manifest.tsv --out out/check
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from array import array
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PHASES = ["decode", "faces", "audio", "denoise", "autoencoder", "paste", "encode"]


def capture(*command):
    return subprocess.run(command, check=True, capture_output=True).stdout


def probe(path):
    """Frames (decoded), rate and size of the picture, and its length in seconds."""
    entries = "stream=nb_read_frames,r_frame_rate,width,height,color_space:packet=pts_time,duration_time"
    text = capture("ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0", "-show_packets",
                   "-show_entries", entries, "-of", "json", str(path))
    data = json.loads(text)
    stream = data["streams"][0]
    times = [float(p["pts_time"]) + float(p.get("duration_time", 0)) for p in data["packets"]]
    starts = [float(p["pts_time"]) for p in data["packets"]]
    return {
        "frames": int(stream["nb_read_frames"]), "rate": stream["r_frame_rate"],
        "size": (stream["width"], stream["height"]), "matrix": stream.get("color_space"), "seconds": max(times) - min(starts), "start": min(starts),
    }


def sound(path, start):
    """Sample rate, and all samples from the first frame of the picture, at `start` seconds, as mono 16 bit."""
    rate = capture("ffprobe", "-v", "error", "-select_streams", "a:0", "-show_entries", "stream=sample_rate", "-of",
                   "csv=p=0", str(path)).strip()
    samples = array("h")
    samples.frombytes(capture("ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a:0", "-ac", "1", "-af",
                              "aresample=async=1:first_pts=0", "-f", "s16le", "-"))
    return rate, samples[round(start * int(rate)):]


def sound_fault(before, after):
    """A program that pads the sound to the picture's length encodes it again: the same sound, but not the same bytes."""
    (rate, a), (other_rate, b) = before, after
    if rate != other_rate:
        return f"sound: {rate} Hz became {other_rate} Hz"
    if a == b:
        return None
    power = sum(x * x for x in a) + 1
    error = sum((x - y) ** 2 for x, y in zip(a, b))
    if len(b) < len(a) - 1024 or error > 0.05 * power:
        return f"sound: {len(a)} samples became {len(b)}, error {error / power:.3f} of its power"
    return None


def to_rgb(source):
    """The program's own conversion, so that frames can be compared byte by byte."""
    matrix = source["matrix"] or ("bt709" if source["size"][1] >= 720 else "bt601")
    matrix = {"bt470bg": "bt601", "smpte170m": "bt601"}.get(matrix, matrix)
    return ["-vf", f"scale=flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp:in_color_matrix={matrix}"]


def pictures(args, size):
    """RGB frames from an ffmpeg input, one bytes object each."""
    command = ["ffmpeg", "-v", "error", *args, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    length = size[0] * size[1] * 3
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while len(frame := process.stdout.read(length)) == length:
            yield frame


def changed_part(before, after, size):
    """Share of the frame covered by the rectangle round all pixels that differ; 0 where none does."""
    width, height = size
    row = width * 3
    top = bottom = None
    left, right = row, 0
    for y in range(height):
        a, b = before[y * row:(y + 1) * row], after[y * row:(y + 1) * row]
        if a == b:
            continue
        top, bottom = y if top is None else top, y
        different = [i for i, (p, q) in enumerate(zip(a, b)) if p != q]
        left, right = min(left, different[0]), max(right, different[-1])
    if top is None:
        return 0.0
    return (bottom - top + 1) * (right // 3 - left // 3 + 1) / (width * height)


def check(program, extra, root, row):
    clip = root / row["path"]
    result = {"clip": row["path"], "split": row["split"], "corpus": row["corpus"], "faults": []}
    with tempfile.TemporaryDirectory() as folder:
        out, report, frames = Path(folder, "out.mp4"), Path(folder, "report.json"), Path(folder, "frames")
        done = subprocess.run(
            [program, "generate", "--video", clip, "--audio", clip, "--length", "video", "--out", out, "--report",
             report, "--lossless-frames", frames, "--progress", "none", *extra],
            capture_output=True, text=True)
        result["exit"] = done.returncode
        if done.returncode != 0:
            result["faults"].append(done.stderr.strip().replace("\n", " "))
            return result
        said = json.loads(report.read_text())
        result["seconds"] = said["seconds"]
        result["peak_memory_mb"] = said["peak_memory_bytes"] / 1e6
        result["gaps"] = len(said["face"]["gaps"])
        source, made = probe(clip), probe(out)
        result["frames"], result["rate"] = made["frames"], made["rate"]
        for what in ("frames", "rate", "size"):
            if source[what] != made[what]:
                result["faults"].append(f"{what}: {source[what]} became {made[what]}")
        frame = source["seconds"] / source["frames"]
        result["length_difference_frames"] = (made["seconds"] - source["seconds"]) / frame
        if abs(result["length_difference_frames"]) > 0.5:
            result["faults"].append(f"length differs by {result['length_difference_frames']:.2f} frames")
        if fault := sound_fault(sound(clip, source["start"]), sound(out, made["start"])):
            result["faults"].append(fault)
        original = pictures(["-i", str(clip), "-fps_mode", "passthrough", *to_rgb(source)], source["size"])
        written = pictures(["-i", str(frames / "%06d.png")], source["size"])
        parts = [changed_part(a, b, source["size"]) for a, b in zip(original, written)]
        result["changed_part"] = max(parts, default=0.0)
        if len(parts) != made["frames"] or result["changed_part"] > 0.5:
            result["faults"].append(f"changed part {result['changed_part']:.2f} over {len(parts)} frames")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", default="target/release/syncdiff")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--splits", default="test,wild")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=int, help="only the first N clips")
    args, extra = parser.parse_known_args()
    splits = args.splits.split(",")
    with args.manifest.open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["split"] in splits][:args.limit]
    args.out.mkdir(parents=True, exist_ok=True)
    journal = args.out / "clips.jsonl"
    known = {}
    if journal.exists():
        known = {result["clip"]: result for result in map(json.loads, journal.read_text().splitlines())}
    todo = [row for row in rows if row["path"] not in known]
    with ThreadPoolExecutor(args.jobs) as pool, journal.open("a") as lines:
        for result in pool.map(lambda row: check(args.program, extra, args.manifest.parent, row), todo):
            known[result["clip"]] = result
            print(json.dumps(result), file=lines, flush=True)
            state = "; ".join(result["faults"]) or "good"
            print(f"{len(known)}/{len(rows)} {result['clip']}: exit {result['exit']}, {state}", flush=True)
    results = [known[row["path"]] for row in rows]
    groups = defaultdict(list)
    for result in results:
        groups[result["split"], result["corpus"]].append(result)
    print("\n| split | corpus | clips | good | frames | with gaps | largest changed part | s/frame "
          + "".join(f"| {phase} " for phase in PHASES) + "| peak MB |")
    print("|---" * (9 + len(PHASES)) + "|")
    for (split, corpus), group in sorted(groups.items()):
        ran = [result for result in group if result["exit"] == 0]
        frames = sum(result["frames"] for result in ran)
        def per_frame(phase):
            return sum(result["seconds"].get(phase, 0.0) for result in ran) / max(frames, 1)
        cells = [split, corpus, len(group), sum(not result["faults"] for result in group), frames,
                 sum(result["gaps"] > 0 for result in ran), f"{max((r['changed_part'] for r in ran), default=0):.2f}",
                 f"{per_frame('total'):.3f}", *[f"{per_frame(phase):.3f}" for phase in PHASES],
                 f"{max((r['peak_memory_mb'] for r in ran), default=0):.0f}"]
        print("| " + " | ".join(map(str, cells)) + " |")
    return 0 if all(not result["faults"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
