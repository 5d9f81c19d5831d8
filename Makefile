# Everything that is built, checked and measured here starts with one of these
# targets. Tools are pinned in tools/go.mod and built into .tmp/bin.

SHELL := /bin/bash
BIN := $(CURDIR)/.tmp/bin
VERSION ?= devel

# How long each fuzz target runs, in seconds; all together at most FUZZ_TOTAL.
FUZZ_EACH ?= 5
FUZZ_TOTAL ?= 120

.PHONY: test
test: needs lint race fuzz ## Everything that must hold before a change lands

.PHONY: help
help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 20

.PHONY: needs
needs: ## Install what the tests need and the machine lacks
	@scripts/needs.sh

# Whose tests measure time, on whole gateways mostly: one package at a time. The others
# share the cores, and those of whole nodes wait more than they work.
TIMED := ./faults ./gateway ./gateway/h2 ./gateway/listen ./gateway/upstream

# What measures the whole, the hostile peers and much arithmetic come without the race
# detector, which would be what they measure; `make hostile-race` has the peers with it.
.PHONY: race
race: ## All tests, with the race detector
	go test -race -p 1 $(TIMED)
	go test -race -p 3 $$(comm -23 <(go list ./... | sort) <(go list $(TIMED) ./gateway/hostile | sort))
	go test ./gateway/policy
	go test -run '^TestExchange(Agrees|SendsLarge)' ./cluster
	go test -run '^(TestMeasured|TestServeWithstands)' .
	SLUICE_MUTATIONS=10000 go test -run '^TestDBServesNoWrongRows$$' ./store/disk
	go test -run '^TestParseBounds' ./store
	go test -run '^TestEncodeBounds' ./gateway/rest
	go test -run '^(TestMemoryGuard|TestRetryDelays|TestGridSplits|TestMigrationSplits|TestStreamsNeed)' ./gateway
	go test ./gateway/hostile

.PHONY: hostile-race
hostile-race: ## The hostile peers, with the race detector
	go test -race -timeout 20m ./gateway/hostile
	SLUICE_HOSTILE_RACE=1 go test -race -run '^TestServeWithstands' .

.PHONY: lint
lint: $(BIN)/built ## go vet, staticcheck, gofumpt and the house rules
	go vet ./...
	$(BIN)/staticcheck ./...
	@BIN=$(BIN) scripts/house-rules.sh

.PHONY: fuzz
fuzz: ## Each fuzz target for FUZZ_EACH seconds
	@scripts/fuzz.sh $(FUZZ_EACH) $(FUZZ_TOTAL)

# Each part adds its own to the list; what they count, they print.
.PHONY: faults
faults: faults-disk faults-node faults-backends faults-cluster ## Kills, damaged files, full disks, backends that fail, peers that are cut off

.PHONY: faults-disk
faults-disk:
	SLUICE_KILLS=1000 SLUICE_MUTATIONS=10000 go test -v -count=1 -timeout 30m ./store/disk

.PHONY: faults-node
faults-node:
	SLUICE_NODE_KILLS=100 SLUICE_CHANGES=1000 go test -v -count=1 -timeout 30m -run '^Test(ServeChangesUnderLoad|ServeLosesNothing|ServeSurvives)' .

# One line for each scenario: what was done, what callers saw, what is wanted.
.PHONY: faults-backends
faults-backends:
	SLUICE_FAULTS=1 go test -C faults -count=1 -timeout 20m -skip '^TestPeer'

# Fifty gateways in one process, then three and ten as processes on machines of their own
# (network namespaces, for which it is root, or may have user namespaces).
.PHONY: faults-cluster
faults-cluster:
	SLUICE_FAULTS=1 go test -v -count=1 -timeout 30m -run '^TestCluster' ./cluster
	SLUICE_SCHEDULES=1000 SLUICE_AT_REST=1 go test -v -count=1 -timeout 30m -run '^TestExchange(Agrees|CostsLittle)' ./cluster
	SLUICE_FAULTS=1 go test -C faults -count=1 -timeout 40m -run '^TestPeer'

.PHONY: limits-removed
limits-removed: ## Each limit removed in turn: which tests miss it
	@scripts/limits-removed.sh

.PHONY: cover
cover: ## Which lines the tests reach: .tmp/cover.html
	@mkdir -p .tmp
	go test -coverprofile=.tmp/cover.out -coverpkg=./... ./...
	go tool cover -func=.tmp/cover.out | tail -1
	go tool cover -html=.tmp/cover.out -o .tmp/cover.html

.PHONY: build
build: ## The static binary: .tmp/bin/sluice
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)/sluice .

.PHONY: bench
bench: ## Measure against other proxies
	go run ./bench

.PHONY: conformance
conformance: build $(BIN)/built ## Run the suites that other people wrote
	@scripts/needs.sh conformance
	cd conformance && go vet ./... && $(BIN)/staticcheck ./... && go test ./...
	cd conformance && go run . -sluice $(BIN)/sluice

.PHONY: generate
generate: $(BIN)/built ## The Go files of the .proto files (needs npm)
	cd demo && npx --yes @bufbuild/buf@1.75.0 generate
	cd demo && npx --yes -p @bufbuild/buf@1.75.0 -p @bufbuild/protoc-gen-es@2.9.0 buf generate --template buf.gen.pages.yaml
	cd admin && npx --yes @bufbuild/buf@1.75.0 generate
	cd cluster && npx --yes @bufbuild/buf@1.75.0 generate
	npx --yes @bufbuild/buf@1.75.0 generate . --config conformance/buf.yaml --template conformance/buf.gen.yaml --path conformance/browser/probe
	cd bench/peers/grpcgateway && go build -o $(BIN)/protoc-gen-grpc-gateway github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway
	npx --yes @bufbuild/buf@1.75.0 generate . --config bench/buf.yaml --template bench/buf.gen.yaml --path bench/echo

.PHONY: clean
clean: ## Remove what these targets made
	rm -rf .tmp

$(BIN)/built: tools/go.mod tools/go.sum
	@mkdir -p $(BIN)
	cd tools && GOBIN=$(BIN) go install tool
	@touch $@
