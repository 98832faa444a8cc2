# One target directory for all checkouts: DataFusion is compiled once.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/tagflow/target
TAGFLOW := $(CARGO_TARGET_DIR)/debug/tagflow

.PHONY: help setup build demo demo-kafka test test-fast chaos mutations fuzz check bench dist services fmt clippy deny

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 14

setup: ## Install what the build needs (Debian)
	@scripts/setup build

build: setup
	@[ -x $(TAGFLOW) ] || echo "The first build compiles DataFusion: about 10 minutes on 2 cores. Later ones take seconds."
	@cargo build --locked

demo: build ## The sample shop on an embedded generator and SQLite; no server needed
	@$(TAGFLOW) demo

demo-kafka: build ## The same with a real Kafka and MariaDB, started and stopped here
	@scripts/with-services $(TAGFLOW) demo --kafka

test: setup ## All tests, with a real Kafka and a real MariaDB on free ports
	@[ -x $(TAGFLOW) ] || echo "The first build compiles DataFusion: about 10 minutes on 2 cores. Later ones take seconds."
	@cargo build --locked --tests
	@scripts/with-services cargo test --locked

test-fast: setup ## Tests that need no server
	@cargo test --locked --lib --test oracle --test diagnostics

chaos: setup ## N faults at random (1000: about an hour) against a real Kafka and MariaDB, again with SEED=…
	@cargo test --locked --test chaos --no-run
	@TAGFLOW_CHAOS_FAULTS=$(or $(N),1000) TAGFLOW_CHAOS_SEED=$(SEED) scripts/with-services cargo test --locked --test chaos random -- --nocapture

mutations: setup ## N mutated files, and a hundred times as many messages (10000: about an hour), again with SEED=…
	@TAGFLOW_MUTATIONS=$(or $(N),10000) TAGFLOW_MUTATIONS_SEED=$(SEED) cargo test --locked --lib mutat -- --nocapture

fuzz: setup ## N seconds of libFuzzer (600) each on decoders, tag headers, check and checkpoints
	@cd fuzz && RUSTC_WRAPPER=$(CURDIR)/fuzz/instrument cargo build --locked --bins
	@cd fuzz && for target in record tag_header check checkpoint; do \
		seeds=corpus/$$target; [ $$target != check ] || seeds="$$seeds ../tests/diagnostics/cases"; \
		mkdir -p artifacts/$$target $(CARGO_TARGET_DIR)/fuzz/$$target; \
		$(CARGO_TARGET_DIR)/debug/$$target -max_total_time=$(or $(N),600) -timeout=60 -rss_limit_mb=4096 -max_len=65536 \
			-artifact_prefix=artifacts/$$target/ $(CARGO_TARGET_DIR)/fuzz/$$target $$seeds || exit 1; \
	done

check: build ## tagflow check and tagflow test on the sample project
	@$(TAGFLOW) check --profile demo
	@$(TAGFLOW) test --profile demo

bench: setup ## Rows a second, with a real Kafka and MariaDB (release build: about 30 minutes the first time)
	@cargo build --locked --release --example bench --bin tagflow
	@scripts/with-services $(CARGO_TARGET_DIR)/release/examples/bench

dist: setup ## A tarball with the release binary and the sample project
	@cargo build --locked --release
	@mkdir -p dist/tagflow && cp $(CARGO_TARGET_DIR)/release/tagflow README.md LICENSE tagflow.toml dist/tagflow/ && cp -r tags schemas dist/tagflow/
	@tar -C dist -czf dist/tagflow-$(shell uname -m)-linux.tar.gz tagflow && rm -r dist/tagflow
	@ls -lh dist/*.tar.gz

services: setup ## Start Kafka and MariaDB and leave them running until Ctrl-C
	@scripts/with-services sh -c 'echo "SHOP_KAFKA=$$SHOP_KAFKA TAGFLOW_STORE_URL=$$TAGFLOW_STORE_URL"; sleep infinity'

fmt: ## Format
	@cargo fmt

clippy: setup ## Lints; warnings are errors
	@cargo clippy --locked --all-targets -- -D warnings

deny: ## Licences, sources and bans of the dependency tree, and known vulnerabilities (fetches their database)
	@scripts/deny advisories
