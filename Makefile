# Two commands: `make demo` lip-syncs a clip, `make test` checks everything. Both set up what is missing on a
# Debian or Ubuntu machine with Rust and Python 3: ffmpeg, pip and a C compiler with apt-get, the face models (and for
# the tests the weights of LPIPS) with pip.
#
# Everything is built in the release profile: the tensor library takes minutes to compile, and is compiled once.

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
CARGO ?= cargo
SYNCDIFF := "$${CARGO_TARGET_DIR:-target}/release/syncdiff"

.PHONY: all demo test tools face-models build clean-demo

all: build

tools:
	@missing=""; \
	command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null || missing="$$missing ffmpeg"; \
	command -v cc >/dev/null || missing="$$missing build-essential"; \
	command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 || missing="$$missing python3 python3-pip"; \
	if [ -n "$$missing" ]; then \
	  echo "installing:$$missing"; \
	  command -v apt-get >/dev/null || { echo "error: please install$$missing by hand, there is no apt-get here"; exit 1; }; \
	  $(SUDO) apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -q --no-install-recommends $$missing; \
	fi

# The whole workspace, always: built crate by crate, the tensor library would be compiled once for each set of features.
build: tools
	$(CARGO) build --release --locked --workspace

face-models: build
	$(SYNCDIFF) models pull

demo: face-models
	sh scripts/demo.sh

test: tools
	$(CARGO) fmt --all --check
	$(CARGO) build --release --locked --workspace --all-targets
	$(SYNCDIFF) models pull face
	$(SYNCDIFF) models pull lpips
	$(CARGO) test --release --locked --workspace
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings

clean-demo:
	rm -rf out/demo
