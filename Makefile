# Nearside. Bare `make` lists the targets; `make demo` shows the product, `make test` proves it.

SHELL         := bash
.SHELLFLAGS   := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS     += --no-print-directory

ifndef VERSION
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
endif
BIN     := $(CURDIR)/bin/nearside
IMAGE   ?= nearside:dev
COMPOSE_FILE := deploy/compose/three-regions.yaml

# One set of flags for everything that does not race, so that the binary, vet, staticcheck
# and the standalone builds share one build cache: a cold one takes minutes with etcd in it.
STATIC  := CGO_ENABLED=0 GOFLAGS="$(strip $(GOFLAGS) -trimpath)"
LDFLAGS := -s -w -X github.com/nearside/nearside/services/cli.Version=$(VERSION)

# The modules of the workspace, and their packages: the stories of e2e start real processes
# and want the two cores for themselves, so they run after the rest. Many tests of both wait
# more than they work, hence three and four at a time on two cores. The packages that take longest
# begin first, so that none of them is what all wait for at the end. Of the stories those of one package
# run at a time, but the storm, a minute of waiting, beside the ones that wait most.
MODULES = $(shell go work edit -json | sed -n 's/.*"DiskPath": "\(.*\)".*/\1/p')
LONGEST = $(addprefix %/,nearside/sdk services/node region/store/clustertest region/store/etcdnode federation/mesh region/registry region/store/etcdstore federation/origin)
ALLUNIT = $(shell go list work | grep -v '/nearside/e2e\(/\|$$\)')
UNIT    = $(filter $(LONGEST),$(ALLUNIT)) $(filter-out $(LONGEST),$(ALLUNIT))
STORIES = $(shell go list work | grep '/nearside/e2e\(/\|$$\)')
# Outside the stories, what has a long form, and where.
LONG    = ^(TestMassExpiry100k|TestClockJump)$$
LONGIN  = ./region/registry
BESIDE  = $(filter %/e2e/storm %/e2e/scenarios,$(STORIES))

TEST_TIMEOUT ?= 9m
FUZZTIME     ?= 10s
BENCHTIME    ?= 1s
SEEDS        ?= 20000
SOAK         ?= 10m
# What `make demo-kill` does to which region, and when.
DEMO_KILL    ?= --duration 60s --kill eu-west@15s --restore eu-west@35s

# The race detector needs a C compiler; without one the tests run without it, and say so.
RACE = $(shell command -v "$$(go env CC)" >/dev/null 2>&1 && echo -race)

# The compose of the docker client, or the older program of its own.
COMPOSE = $(shell if docker compose version >/dev/null 2>&1; then echo docker compose; else echo docker-compose; fi) -p nearside -f $(COMPOSE_FILE)

##@ Use

help: ## list these targets
	@awk 'BEGIN {FS = ":.*## "; print "Nearside: service discovery that stays on the near side.\n\nusage: make TARGET"} \
		/^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/nearside, one static binary
	$(STATIC) go build -ldflags '$(LDFLAGS)' -o $(BIN) ./services/cmd/nearside

demo: build ## start three regions with shop and load on this machine; Ctrl-C ends it
	$(BIN) demo

demo-kill: build ## the unattended demo: one region dies at 15 s and comes back at 35 s
	$(BIN) demo $(DEMO_KILL)

##@ Prove

# The race detector bears 8,128 goroutines and a tenth of the speed: what is about numbers runs without it.
test: build ## vet, every test with the race detector, then the stories of e2e
	@[ -n "$(RACE)" ] || echo "no C compiler here: the tests run without the race detector"
	$(STATIC) go vet work
	go test $(RACE) -p 4 -timeout $(TEST_TIMEOUT) $(UNIT)
	go test -count=1 -timeout $(TEST_TIMEOUT) ./federation/internal/simulation
	go test -timeout $(TEST_TIMEOUT) -run 'TestFleetFindsItsRegistryAgain|TestBentSnapshots' ./sdk
	NEARSIDE_BINARY=$(BIN) go test $(RACE) -count=1 -p 1 -parallel 3 -timeout $(TEST_TIMEOUT) $(filter-out $(BESIDE),$(STORIES))
	NEARSIDE_BINARY=$(BIN) go test $(RACE) -count=1 -p 2 -parallel 3 -timeout $(TEST_TIMEOUT) $(BESIDE)

check: fmt-check lint standalone test ## exactly what CI runs: format, staticcheck, standalone builds, test

e2e: build ## the stories of e2e alone, with what they say and measure
	NEARSIDE_BINARY=$(BIN) go test $(RACE) -v -count=1 -p 1 -timeout $(TEST_TIMEOUT) $(STORIES)

soak: build ## the long form of what has one: each repeats for SOAK (10m); RUN=TestX chooses
	NEARSIDE_SOAK=$(SOAK) go test $(RACE) -v -count=1 -p 1 -timeout 24h $(if $(RUN),-run '$(RUN)',-run '$(LONG)') $(LONGIN)
	NEARSIDE_BINARY=$(BIN) NEARSIDE_SOAK=$(SOAK) go test $(RACE) -v -count=1 -p 1 -timeout 24h $(if $(RUN),-run '$(RUN)') $(STORIES)

e2e-compose: ## kill a region of the compose file and watch the others (needs a docker engine)
	@if docker info >/dev/null 2>&1; then $(MAKE) image IMAGE=nearside:e2e; fi
	NEARSIDE_COMPOSE=1 NEARSIDE_IMAGE=nearside:e2e go test -v -count=1 -timeout $(TEST_TIMEOUT) ./e2e/compose

sim: ## the simulated federation with SEEDS (20000) seeds; SEED=N replays one
	SEEDS=$(SEEDS) $(if $(SEED),SEED=$(SEED)) go test -v -count=1 -timeout 0 ./federation/internal/simulation

fuzz: ## every fuzz target for FUZZTIME (10s) each
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' $(MODULES) | while IFS=: read -r file target; do \
		echo "== $$(dirname "$$file") $${target#func }"; \
		go test -run '^$$' -fuzz "^$${target#func }$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "./$$(dirname "$$file")" </dev/null; \
	done

bench: build ## every benchmark once, for BENCHTIME (1s) each; then the figures of the design beside their yardsticks
	@rm -f bin/bench.txt bin/figures.txt
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) $(filter-out %/services/bench,$(UNIT)) | tee bin/bench.txt
	NEARSIDE_BINARY=$(BIN) NEARSIDE_BENCH_OUTPUT=$(CURDIR)/bin/bench.txt NEARSIDE_BENCH_TABLE=$(CURDIR)/bin/figures.txt \
		go test -run '^$$' -bench . -benchtime 1x -timeout 7m ./services/bench
	@echo; echo "What was measured, beside its yardstick in the same run, and the goal (load of the machine now: $$(cut -d" " -f1-3 /proc/loadavg 2>/dev/null)):"; echo; cat bin/figures.txt

##@ Parts of check

fmt: ## format every Go file
	@go tool gofumpt -w $(MODULES)

fmt-check: ## say which Go files are not formatted
	@bad="$$(go tool gofumpt -l $(MODULES))"; \
	if [ -n "$$bad" ]; then echo "not formatted (make fmt does it):"; echo "$$bad"; exit 1; fi

# Its cache knows files by their trimmed paths, so each checkout keeps one of its own.
lint: ## staticcheck over every module
	@mkdir -p bin
	STATICCHECK_CACHE=$(CURDIR)/bin/.staticcheck $(STATIC) go tool staticcheck $(UNIT) $(STORIES)

standalone: ## build each module alone, without the workspace
	@for m in $(MODULES); do echo "GOWORK=off go build ./... in $$m"; (cd $$m && GOWORK=off $(STATIC) go build ./...); done

##@ Containers

image: build ## build the container image nearside:dev, from nothing but the binary
	rm -rf bin/image && mkdir -p -m 700 bin/image/data
	cp $(BIN) deploy/Dockerfile bin/image/
	docker build -q --build-arg VERSION=$(VERSION) -t $(IMAGE) bin/image
	@docker image prune -f --filter label=org.opencontainers.image.title=nearside >/dev/null # the one this replaced

compose-up: image ## start three regions in containers, and wait until all are healthy
	$(COMPOSE) up -d
	$(COMPOSE) ps

compose-down: ## stop them and delete their data
	$(COMPOSE) down --volumes --remove-orphans

##@ Keep house

clean: ## delete what was built
	rm -rf bin e2e/.artifacts

.PHONY: help build demo demo-kill test check e2e soak e2e-compose sim fuzz bench fmt fmt-check lint standalone image compose-up compose-down clean
