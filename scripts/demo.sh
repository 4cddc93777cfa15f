#!/bin/sh
# Lip-syncs the clip that comes with the project, and a real clip where the shared data lie beside the project; says
# plainly which ran and where the results are.
set -eu
cd "$(dirname "$0")/.."
program=target/release/syncdiff
[ -n "${CARGO_TARGET_DIR:-}" ] && program="$CARGO_TARGET_DIR/release/syncdiff"
out=out/demo
mkdir -p "$out"

# first FILES..: the first name that is a file.
first() {
    for file in "$@"; do
        if [ -f "$file" ]; then
            printf '%s\n' "$file"
            return
        fi
    done
}

# sync NAME CLIP SPEECH: one job, with its report.
sync() {
    echo "$1: the face of $2 says what $3 says"
    "$program" generate --video "$2" --audio "$3" --out "$out/$1.mp4" --report "$out/$1.json"
    results="$results
  $out/$1.mp4 ($4)"
}

results=""
clip=$(first assets/demo/*.mp4)
if [ -n "$clip" ]; then
    speech=$(first assets/demo/*.wav assets/demo/*.flac assets/demo/*.ogg assets/demo/*.m4a "$clip")
    sync drawn "$clip" "$speech" "the project's own clip"
fi

data=${SYNCDIFF_DATA:-../shared/data}
# A speaker that no training has seen, driven by the speech of another clip of the same corpus.
clip=$(first "$data"/grid/s26/*.mp4)
if [ -n "$clip" ]; then
    speech=$(first $(ls -r "$data"/grid/s26/*.mp4))
    sync real "$clip" "$speech" "a real clip of the shared data"
else
    echo "real clip: not run, $data is not there"
fi

if [ -z "$results" ]; then
    echo "error: neither assets/demo nor $data holds a clip" >&2
    exit 1
fi
echo "done; the results, each with a report (.json) beside it:$results"
