# Two commands are all a newcomer needs: `make demo` and `make test`. Everything happens in .venv beside this file.

# The system's Python where it will do: distributions build theirs with optimizations that one compiled by hand, or by a
# version manager, is often without, for a fifth of its speed. PYTHON=… takes another.
WILL_DO := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell /usr/bin/python3 -c '$(WILL_DO)' 2>/dev/null && echo /usr/bin/python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# One more test at once than there are cores, since some always wait; but no crowd on a large machine.
WORKERS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); echo $$((cores < 6 ? cores + 1 : 6)))
# The environment of this project alone: nothing that a shell or another project has set may leak in. What Python has
# compiled it keeps, also where an image says otherwise: to compile the tests anew is half of what collecting them costs.
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH VIRTUAL_ENV PYTHONDONTWRITEBYTECODE

IMAGES := allocator client
REGISTRY ?= ghcr.io/lablink
REF ?= $(shell git symbolic-ref --quiet HEAD)
COMMIT ?= $(shell git rev-parse HEAD)
TAGS ?= $(shell $(PYTHON) -m backend.provisioning.image_tags $(REF) $(COMMIT))

.DEFAULT_GOAL := help
.PHONY: help demo serve test check fmt bench bench-compare soak lock clean image-tags images

help:
	@echo "make demo    everything on this machine, in your browser   (ARGS=\"server.port=9000\" passes settings on)"
	@echo "make test    the whole test suite"
	@echo "make check   formatting, lint, types, import arrows"
	@echo "make fmt     format the code"
	@echo "make bench   measure, as ratios to a limit of this machine (ARGS=\"claims\" for one)"
	@echo "make bench-compare BASE=COMMIT   what became slower since then (ARGS=\"claims\" for one)"
	@echo "make soak    the long tests (ARGS=\"NAME\" for one)"
	@echo "make deploy-plan ENVIRONMENT=test   what an apply would change (deploy-bootstrap, deploy-apply, deploy-destroy)"
	@echo "make images  build the images (then scan-images, push-images, sign-images; image-tags prints their tags)"
	@echo "make lock    renew the locked requirements"
	@echo "make clean   remove what this Makefile made"

demo: $(VENV)/server.stamp
	@exec $(BIN)/lablink demo $(ARGS)

serve: $(VENV)/server.stamp
	@exec $(BIN)/lablink serve $(ARGS)

test: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.ensure_tools
	@exec $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/hadolint $(IMAGES:%=Dockerfile.%)
	$(BIN)/actionlint

fmt: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.ensure_tools
	@exec $(BIN)/lablink bench $(ARGS)

# Beside this working tree: another commit, measured in turns with it. Fails if something has become slower.
bench-compare: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.ensure_tools
	@exec $(BIN)/python -m lablink_ui.bench.compare "$${BASE:?set BASE=COMMIT}" $(ARGS)

soak: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.ensure_tools
	@exec $(BIN)/python -m tests.soak $(ARGS)

lock: $(VENV)/dev.stamp
	@sh requirements/lock.sh $(BIN)

# The server on AWS (docs/deployment.md). What is given goes through the environment, so that no shell reads it as code.
deploy-%: $(VENV)/server.stamp
	@exec $(BIN)/lablink deploy $* "$${ENVIRONMENT:?set ENVIRONMENT=dev, test or prod}" \
		$${FILE:+--file "$$FILE"} $${IMAGE_TAG:+"image_tag=$$IMAGE_TAG"} $${CONFIRM:+--confirm "$$CONFIRM"} $(ARGS)

# Images: what a git ref and a commit are called is decided in one place (backend/provisioning/image_tags.py).
image-tags:
	@$(PYTHON) -m backend.provisioning.image_tags $(REF) $(COMMIT)

images: $(IMAGES:%=image-%)
scan-images: $(IMAGES:%=scan-%)
push-images: $(IMAGES:%=push-%)
sign-images: $(IMAGES:%=sign-%)

$(IMAGES:%=image-%): image-%:
	docker build --pull --file Dockerfile.$* $(TAGS:%=--tag $(REGISTRY)/lablink-$*:%) .

# A flaw that has a mend fails it.
$(IMAGES:%=scan-%): scan-%:
	trivy image --exit-code 1 --severity HIGH,CRITICAL --ignore-unfixed $(REGISTRY)/lablink-$*:$(firstword $(TAGS))

$(IMAGES:%=push-%): push-%:
	$(foreach tag,$(TAGS),docker push $(REGISTRY)/lablink-$*:$(tag) &&) true

# What is signed is the digest, not a name that may move; without a key, by the pipeline's own identity.
$(IMAGES:%=sign-%): sign-%:
	cosign sign --yes "$$(docker inspect --format '{{index .RepoDigests 0}}' $(REGISTRY)/lablink-$*:$(firstword $(TAGS)))"

clean:
	rm -rf $(VENV) .ruff_cache .mypy_cache .pytest_cache .hypothesis dist

# Stamps follow the locks: a changed lock is installed, an unchanged one costs nothing.
$(VENV)/python.stamp:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) was not found; install Python 3.11 or newer, or set PYTHON=…"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11; set PYTHON=python3.12, for instance"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "make: $(PYTHON) lacks the venv module; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "Setting up $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/server.stamp: $(VENV)/python.stamp requirements/build.txt requirements/server.txt pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/build.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-build-isolation -r requirements/server.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/server.stamp requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-build-isolation -r requirements/dev.txt
	@touch $@
