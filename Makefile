# make run    build and serve the embedded example, no cluster needed
# make test   everything that needs no root and no cluster
# make lint   formatters and linters
# make soak   a million requests while everything changes (SOAK_REQUESTS=N)
# make bench  benchmarks (BENCH=pattern)
# make bench-faults  one of four endpoints turns bad, beside HAProxy and nginx, which must be installed (FAULTS_WINDOW=20s)
# make fuzz   every fuzz target for FUZZTIME each
# make graphs random graphs of Gateways, routes and grants against a slow reading of the specification (GRAPHS=N)
#
# make grpc  a client and a server of gRPC's own library, with the built program between them
# make acme  certificates from a real ACME server, Pebble, with several replicas (ACME=short leaves out what takes minutes)
#
# make cluster       a real Kubernetes with two nodes, from Go modules (root, Linux)
# make kubectl       kubectl in it (ARGS="get pods -A")
# make cluster-down  end it
#
# make conformance        a cluster, the end-to-end tests, the Gateway API's suite, and the end of the cluster (20 minutes the first time, 10 after)
# make conformance-full   the same with the full counts; writes the figures and the report: conformance/reports/end-to-end.md and gateway-api.yaml
# make conformance-suite  the Gateway API's conformance suite, in the cluster, with the Fairlead of this checkout
#                         (RUN=NameOfOneTest, FEATURES=A,B instead of those that Fairlead claims, ARGS=further flags of the suite)
#
# With CLUSTER=name these use a cluster of that name; several can run side by side.

GO            ?= go
VERSION       ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS       := -s -w -X main.version=$(VERSION)
SOAK_REQUESTS ?= 1000000
BENCH         ?= .
FUZZTIME      ?= 30s
GRAPHS        ?= 10000
# Modules that only tests need. The rules of the linters are those of the product.
NESTED        := conformance conformance/program conformance/acme conformance/grpc conformance/suite
# The race detector needs a C compiler; without one the tests run without it, and say so.
RACE          := $(shell command -v $${CC:-cc} >/dev/null 2>&1 && echo -race)

.PHONY: run build test lint grpc acme soak bench bench-faults fuzz graphs tidy clean cluster cluster-down kubectl conformance conformance-full conformance-suite

export CLUSTER
IN_CLUSTER := $(GO) run -C conformance ./cmd/cluster

run: build
	./bin/fairlead demo

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/fairlead ./cmd/fairlead

test:
	@test -n "$(RACE)" || echo "no C compiler found: testing without the race detector"
	$(GO) vet ./...
	$(GO) test $(RACE) -timeout 9m ./...

grpc:
	cd conformance/grpc && $(GO) vet ./... && $(GO) test -count=1 -timeout 5m ./...

acme:
	cd conformance/acme && $(GO) test -count=1 -parallel 6 -timeout 20m $(if $(filter short,$(ACME)),-short) ./...

lint:
	$(GO) tool -modfile=tools/go.mod golangci-lint run ./...
	@set -e; linter=$$($(GO) tool -n -modfile=tools/go.mod golangci-lint); for module in $(NESTED); do \
		echo "== $$module"; $(GO) -C $$module vet ./...; (cd $$module && $$linter run ./...); $(GO) -C $$module mod tidy -diff; \
	done
	$(GO) mod tidy -diff
	$(GO) -C tools mod tidy -diff

soak:
	$(GO) test ./cmd/fairlead -run '^TestSoak$$' -count=1 -v -timeout 60m -soak.requests=$(SOAK_REQUESTS)

bench-faults:
	FAULTS_WINDOW=$(or $(FAULTS_WINDOW),20s) $(GO) test ./cmd/fairlead -tags faults -run '^TestFaults$$' -count=1 -v -timeout 30m

bench:
	$(GO) test ./... -run '^$$' -bench '$(BENCH)' -benchmem

graphs:
	$(GO) test ./internal/compile -run '^TestGraphsAgreeWithTheSpecification$$' -count=1 -v -timeout 60m -graphs=$(GRAPHS)

fuzz:
	@set -e; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test $$pkg -list '^Fuzz' | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; $(GO) test $$pkg -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME); \
		done; \
	done

cluster:
	$(IN_CLUSTER) up

cluster-down:
	$(IN_CLUSTER) down

kubectl:
	@$(IN_CLUSTER) kubectl $(ARGS)

conformance:
	conformance/run

conformance-full:
	conformance/run --full

# One test keeps the base objects, so that the next one starts at once; the whole suite writes the report.
conformance-suite: cluster
	$(IN_CLUSTER) install
	$(IN_CLUSTER) suite $(if $(FEATURES),-supported-features=$(FEATURES)) $(if $(RUN),-run-test=$(RUN) -cleanup-base-resources=false,\
		-version=$(VERSION) -report-output=$(CURDIR)/conformance/reports/gateway-api.yaml) $(ARGS)

tidy:
	$(GO) mod tidy
	$(GO) -C tools mod tidy

clean:
	rm -rf bin
