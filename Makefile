# Everything here works on a machine with git, Go, make and Python's pip;
# `make test` also needs root on Debian, to install what the tests drive.

GO ?= go

.PHONY: build test check install-test-tools bench bench-repeat fuzz

build: ## the binary, as bin/meshbench
	$(GO) build -trimpath -o bin/meshbench ./cmd/meshbench

check: ## formatting, vet, staticcheck
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo 'run gofmt -w .'; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags linkerd ./test/linkerd
	$(GO) tool staticcheck ./...
	GOOS=darwin $(GO) vet ./cmd/...

test: install-test-tools check ## everything that CI runs
	test/run

install-test-tools: ## what the tests drive, from Debian
	test/install-tools

bench: build ## the figures beside public tools: name, value, unit
	test/install-tools bench
	$(GO) run ./test/bench

bench-repeat: build ## ten fresh runs: do their intervals hold?
	$(GO) run ./test/bench -repeat 10
