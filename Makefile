# Thin on purpose: every target calls one invoke task; the only logic is making .venv.
PYTHON ?= python3
VENV := .venv
INVOKE := $(VENV)/bin/invoke
LOCKS := requirements/cpu.lock requirements/host.lock requirements/torch.txt
READY := $(VENV)/.ready
TESTS := $(VENV)/.tests

.DEFAULT_GOAL := help
.PHONY: help setup data run submit test test-slow test-oldest image-test lint bench lock

help:                  ## what there is to do; needs nothing but make
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
setup: $(READY)        ## fetch and verify model and data
	@$(INVOKE) setup
data: $(READY)         ## fetch and verify the public sets
	@$(INVOKE) data
run: $(READY)          ## answer the public set of the contest
	@$(INVOKE) run
submit: $(READY)       ## pack the newest run, to hand it in
	@$(INVOKE) submit
test: $(TESTS)         ## all tests but the slow ones
	@$(INVOKE) test
test-slow: $(TESTS)    ## the slow ones
	@$(INVOKE) test --slow
test-oldest: $(TESTS)  ## the equality tests on the oldest transformers that we support
	@$(INVOKE) test-oldest
image-test: $(TESTS)   ## build the image on a stand-in for its base and run it (by ARCH also arm64, under qemu)
	@$(INVOKE) image-test
lint: $(TESTS)         ## ruff, that nothing needs more than Python 3.10, and types by mypy
	@$(INVOKE) lint
bench: $(READY)        ## ours and transformers' pipe() side by side on this CPU
	@$(INVOKE) bench
lock: $(TESTS)         ## compile the locked requirements anew
	@$(INVOKE) lock

# pip's own progress: torch, the large download, by its bars, all else in one line that counts packages: the locks, and
# what torch asks for, of which only a build for CUDA finds anything left to fetch. The last line that COUNTED reads is
# `ok` only where pip ended well, since a pipe has the status of its end. Modules are compiled when they are first
# imported, which most of them never are, and kept whatever the machine is set to: each call would compile them again.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check --no-compile
COUNTED := { n=0; while read -r word name rest; do case $$word in \
	Collecting) n=$$((n + 1)); printf '\r\033[K  %d: %s' $$n $$name;; \
	Installing) printf '\r\033[K  installing %d packages' $$n;; \
	esac; last=$$word; done; printf '\r\033[K'; [ "$$last" = ok ]; }

# The stamp comes last: after Ctrl-C the next call goes on where this one stopped.
$(READY): $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 …")'
	@echo "Making $(VENV): locked packages, then torch"
	@$(PYTHON) -m venv $(VENV)
	@{ $(PIP) --require-hashes -r requirements/cpu.lock -r requirements/host.lock && echo ok; } | $(COUNTED)
	@$(PIP) --no-deps -r requirements/torch.txt
	@{ $(PIP) -r requirements/torch.txt && echo ok; } | $(COUNTED)
	@touch $@

$(TESTS): $(READY) requirements/dev.lock
	@echo "Adding what the tests need: requirements/dev.lock"
	@{ $(PIP) --require-hashes -r requirements/dev.lock && echo ok; } | $(COUNTED)
	@touch $@
