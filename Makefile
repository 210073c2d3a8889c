# Thin on purpose: every target calls one invoke task; the only logic is making .venv.
PYTHON ?= python3
VENV := .venv
INVOKE := $(VENV)/bin/invoke
LOCKS := requirements/cpu.lock requirements/host.lock requirements/dev.lock requirements/torch.txt
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup data run submit test test-slow test-oldest image-test lint bench lock

help: $(READY)         ## what there is to do
	@$(INVOKE) help
setup: $(READY)        ## fetch and verify model and data
	@$(INVOKE) setup
data: $(READY)         ## fetch and verify the public sets
	@$(INVOKE) data
run: $(READY)          ## answer the public set of the contest
	@$(INVOKE) run
submit: $(READY)       ## pack the newest run, to hand it in
	@$(INVOKE) submit
test: $(READY)         ## all tests but the slow ones
	@$(INVOKE) test
test-slow: $(READY)    ## the slow ones
	@$(INVOKE) test --slow
test-oldest: $(READY)  ## the equality tests on the oldest transformers that we support
	@$(INVOKE) test-oldest
image-test: $(READY)   ## build the image on a stand-in for its base and run it (by ARCH also arm64, under qemu)
	@$(INVOKE) image-test
lint: $(READY)         ## ruff, that nothing needs more than Python 3.10, and types by mypy
	@$(INVOKE) lint
bench: $(READY)        ## ours and transformers' pipe() side by side on this CPU
	@$(INVOKE) bench
lock: $(READY)         ## compile the locked requirements anew
	@$(INVOKE) lock

# The stamp comes last: after Ctrl-C the next call goes on where this one stopped.
$(READY): $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 …")'
	@echo "Making $(VENV): locked packages, then torch"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/cpu.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/host.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/torch.txt
	@touch $@
