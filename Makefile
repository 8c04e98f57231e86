# Each target does its own set-up and is safe to repeat.

.PHONY: run test test-clients test-deep bench bench-guests

run: ## a server on this machine, with a sample disk to try it on
	@scripts/setup.sh run
	@scripts/run.sh

test: ## everything a change must pass
	@scripts/setup.sh test
	@scripts/test.sh

test-clients: ## the documentation's samples in Java, Python and Go, with the vendor's SDKs
	@scripts/setup.sh test-clients
	@scripts/test_clients.sh

test-deep: ## the same of the released program, with a longer crash sweep and more random cases
	@scripts/setup.sh test
	@CAIRN_AGENT_TREES=1000 CAIRN_DECADE_YEARS=10 CAIRN_SWEEP_KILLS=2000 CAIRN_GUEST_KILLS=500 CAIRN_XFS_LOGS=10 PROPTEST_CASES=1000 scripts/test.sh release

bench: ## full, incremental and restore beside restic and borg
	@scripts/setup.sh bench
	@scripts/bench.sh

bench-guests: ## guests that run, and disks that are served out of backups
	@scripts/setup.sh test
	@cargo build --release --locked --quiet --package cairn
	@CAIRN_BINARY=target/release/cairn .venv/bin/python bench/guests.py
