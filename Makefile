.PHONY: check test

check:
	ruff check .
	ruff format --check .
	mypy
	lint-imports

test:
	pytest
