.PHONY: check lint format types layers test

check: lint format types layers

lint:
	ruff check .

format:
	ruff format --check .

types:
	mypy

layers:
	lint-imports

test:
	pytest
