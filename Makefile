# Two commands do everything on a fresh Linux machine: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PY := .venv/bin/python
PROFILE ?= api
NAME ?= rfuav
UV_VERSION := 0.13.9

.DEFAULT_GOAL := help
.PHONY: bench-plan bench-handoff bench-burst bench-train bench-io help venv lock check lint types contracts drift generate test test-unit test-histories test-contract test-page test-trainer test-cluster \
	cluster-up cluster-down kubeconfig demo demo-clean

help:  ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.venv/.done: requirements/dev.txt $(wildcard */pyproject.toml)
	python3 -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(PY) || python3 -m venv .venv
	.venv/bin/pip install --quiet uv==$(UV_VERSION)
	VIRTUAL_ENV=$(CURDIR)/.venv .venv/bin/uv pip sync --quiet --require-hashes requirements/dev.txt
	VIRTUAL_ENV=$(CURDIR)/.venv .venv/bin/uv pip install --quiet --no-deps -e crds -e kube -e operator -e gateway -e cli -e trainer_image -e localcluster
	touch $@

venv: .venv/.done  ## The Python environment, versions and hashes as locked

.PHONY: vendor
vendor:  ## The page's libraries, as gateway/vendor.lock names them (npm)
	bash gateway/vendor.sh

lock: venv  ## Lock the versions again (requirements/*.txt)
	bash requirements/lock.sh

# pyproject.toml has the version; tests/unit/test_version.py compares all that name it.
VERSIONED := pyproject.toml */pyproject.toml helm/rfuav-operator/*.yaml helm/rfuav-operator/README.md deploy/overlays/*/*.yaml examples/demo/*.yaml demo/run.py \
	README.md docs/install.md

.PHONY: set-version
set-version:  ## Another version, wherever it is named: VERSION=0.2.0
	@test -n "$(VERSION)" || { echo "write VERSION=..." >&2; exit 1; }
	old=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) && \
	sed -i -E "s/(^version = \"|^(app)?[vV]ersion: |rfuav-(operator|trainer):)$${old//./\\.}/\1$(VERSION)/g" $(VERSIONED)

TRAINER_COMMANDS := .venv/bin/typer rfuav_trainer.cli.main utils docs --name rfuav-trainer --title "Commands of the trainer"

PLUGIN_COMMANDS := .venv/bin/typer rfuav_cli.main utils docs --name "kubectl rfuav" --title "Commands of kubectl rfuav"

REST_REFERENCE := .venv/bin/rfuav-gateway openapi --markdown

generate: venv  ## Write from the code: crds/*.yaml, what the chart has of them and its table of values, dashboards, docs/{api,rest-api,trainer-commands,kubectl-rfuav-commands,metrics}.md
	$(PY) -m rfuav_crds
	$(PY) -m monitoring
	$(TRAINER_COMMANDS) --output docs/trainer-commands.md
	$(PLUGIN_COMMANDS) --output docs/kubectl-rfuav-commands.md
	$(REST_REFERENCE) > docs/rest-api.md
	$(PY) helm/generate.py

check: lint types contracts drift test-unit  ## Lint, types, import contracts, drift, unit and property tests, some simulated histories
	RFUAV_HISTORIES=200 .venv/bin/pytest -q tests/simulation/test_histories.py

lint: venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: venv
	.venv/bin/mypy crds/src kube/src operator/src gateway/src cli/src trainer_image/src localcluster/src demo monitoring helm

contracts: venv
	.venv/bin/lint-imports

drift: venv
	$(PY) -m rfuav_crds --check
	$(PY) -m monitoring --check
	$(TRAINER_COMMANDS) | diff -B docs/trainer-commands.md - || { echo "docs/trainer-commands.md differs from the code: run make generate" >&2; exit 1; }
	$(PLUGIN_COMMANDS) | diff -B docs/kubectl-rfuav-commands.md - || { echo "docs/kubectl-rfuav-commands.md differs from the code: run make generate" >&2; exit 1; }
	$(REST_REFERENCE) | diff docs/rest-api.md - || { echo "docs/rest-api.md differs from the code: run make generate" >&2; exit 1; }
	$(PY) helm/generate.py --check

# make check COVERAGE=build/coverage.json: which lines of the operator the tests reach, without the simulated histories.
MEASURED = mkdir -p $(dir $(COVERAGE)) && $(PY) -m slipcover --source crds/src,kube/src,operator/src,gateway/src,cli/src --json --out $(COVERAGE) \
	-m pytest -W "ignore:Module already imported"

# These have processes of their own.
HISTORIES := tests/simulation/test_histories.py tests/simulation/test_mutations.py

# Programs are built before pytest starts: from nothing that takes minutes, which no test's timeout allows.
test-unit: venv
	@$(PY) -m localcluster build helm >/dev/null
	$(if $(COVERAGE),$(MEASURED),.venv/bin/pytest) -q -n auto --dist worksteal tests --ignore tests/trainer --ignore tests/page $(addprefix --ignore ,$(HISTORIES)) -m "not contract and not cluster"

test-histories: venv  ## The simulation: 1,000 histories, and whether they notice each broken rule
	.venv/bin/pytest -q $(HISTORIES)

test-contract: venv  ## The API and the operator against a real API server (no root)
	@$(PY) -m localcluster build --profile api >/dev/null
	@$(PY) -m localcluster build helm >/dev/null
	.venv/bin/pytest -q tests -m contract

test-page: venv  ## The page in Chromium, served by a double of the gateway
	.venv/bin/pytest -q -n 2 tests/page

.PHONY: screenshots
screenshots: venv  ## Pictures of every view of the page into build/screenshots, a selection into docs/img/page (VIEWS="overview jobs")
	PYTHONPATH=tests $(PY) -m page.screenshots $(VIEWS)

test-trainer: venv  ## The trainer on the CPU
	.venv/bin/pytest -q tests/trainer -m "not contract and not cluster"

test-cluster: venv  ## End to end through real pods (root)
	@[ "$$(id -u)" != 0 ] || $(PY) -m localcluster build >/dev/null
	.venv/bin/pytest -q tests -m cluster

# One suite at a time: two cores are shared by the tests and the clusters they bring.
test: lint types contracts drift test-unit  ## Everything: check, simulation, trainer, contract and end-to-end suites, one after the other
	$(MAKE) --no-print-directory test-histories
	$(MAKE) --no-print-directory test-page
	$(MAKE) --no-print-directory test-trainer
	$(MAKE) --no-print-directory test-contract
	$(MAKE) --no-print-directory test-cluster

.PHONY: simulate
simulate: venv  ## Replay one history of the simulation with its log (SEED=7), or play many fresh ones (N=5000; FIRST=n: from n on)
	PYTHONPATH=tests $(PY) -m simulation $(if $(N),--count $(N) $(if $(FIRST),--first $(FIRST)),--seed $(or $(SEED),0))

.PHONY: fuzz
fuzz: venv  ## Feed broken objects to every input of the operator (N=100000, FIRST=0)
	PYTHONPATH=tests $(PY) -m fuzz --count $(or $(N),2000) --first $(or $(FIRST),0)

.PHONY: test-helm4
test-helm4: venv  ## The life of a release with Helm 4, which is built first
	@$(PY) -m localcluster build --profile api >/dev/null
	@$(PY) -m localcluster build helm4 >/dev/null
	.venv/bin/pytest -q tests/contract/chart/test_lifecycle.py -k helm4

.PHONY: fuzz-gateway
fuzz-gateway: venv  ## Play requests made from the gateway's OpenAPI document, with a seed that is printed (N=20000, SEED=7)
	RFUAV_FUZZ_GATEWAY=$(or $(N),20000) RFUAV_FUZZ_SEED=$(SEED) .venv/bin/pytest -q -s tests/contract/gateway/test_openapi.py

bench-plan: venv  ## How long the core plans: 10,000 jobs on 1,000 nodes
	@$(PY) -m bench.plan

bench-handoff: venv  ## From a pod that ended to the next that is created, on a live API server
	@$(PY) -m bench.handoff

.PHONY: bench-outage
bench-outage: venv  ## What outages of the API server and of etcd cost: 150 jobs, an outage of 5 s every 8 to 15 s
	@$(PY) -m bench.outage

bench-train: venv  ## Pictures a second in training, against the reference's way and tuned PyTorch
	@$(PY) -m bench.train

.PHONY: bench-kept
bench-kept: venv  ## What reading costs in an epoch when decoded pictures are kept in memory, on disk, or not
	@$(PY) -m bench.kept

bench-io: venv  ## What a training costs beside its steps: start-up, resume, the stall of a save
	@$(PY) -m bench.io

bench-burst: venv  ## 500 held jobs let in at once, against what the API server takes
	@$(PY) -m bench.burst

.PHONY: bench-gateway
bench-gateway: venv  ## What the REST gateway takes: status, creates, lists and readers of logs (TASKS=50000)
	@$(PY) -m bench.gateway $(if $(TASKS),--tasks $(TASKS)) $(if $(READERS),--readers $(READERS))

.PHONY: bench-page
bench-page: venv  ## How long the page takes to answer a key or a click with 10,000 jobs on it
	@PYTHONPATH=tests $(PY) -m bench.page $(if $(TASKS),--jobs $(TASKS))

.PHONY: bench-streams
bench-streams: venv  ## What open pages take of the REST gateway: the first picture of 10,000 jobs, 20 readers of 100 changes a second
	@$(PY) -m bench.streams

.PHONY: bench-infer
bench-infer: venv  ## Images and IQ samples a second, ours with all, some and no pictures, the reference's way and tuned PyTorch
	@$(PY) -m bench.infer

.PHONY: bench-accuracy
bench-accuracy: venv  ## Every architecture trained to a stated accuracy (some: MODELS="resnet18 vit_h_14")
	@$(PY) -m bench.accuracy $(if $(MODELS),--models $(MODELS))

.PHONY: bench-curves
bench-curves: venv  ## Learning curves beside the reference's way: not worse at equal epochs, better in equal time
	@$(PY) -m bench.curves $(if $(MODELS),--models $(MODELS)) $(if $(PLOT),--plot $(PLOT))

.PHONY: bench-peers
bench-peers: venv  ## The same loads through Kueue and through the operator, one after the other
	@$(PY) -m bench.peers

cluster-up: venv  ## A real Kubernetes on this machine: PROFILE=api|full NAME=rfuav
	$(PY) -m localcluster up --profile $(PROFILE) --name $(NAME)

cluster-down: venv  ## Take it down, leaving nothing behind
	$(PY) -m localcluster down --name $(NAME)

kubeconfig:  ## Print the path of the running cluster's kubeconfig
	@$(PY) -m localcluster kubeconfig --name $(NAME)

demo: venv  ## The whole way on a real cluster that it brings itself
	$(PY) -m demo up

demo-clean: venv  ## Remove what the demo made
	$(PY) -m demo clean
