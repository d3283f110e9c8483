# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

.PHONY: help setup demo bench fuzz test lint unit units-oldest sanity integration e2e format clean
.DEFAULT_GOAL := help

# The disk tools are there, and not on everybody's PATH.
export PATH := $(PATH):/usr/sbin:/sbin

help:                 ## this list
	@sed -n 's/^\([a-z -]*\):.*## /\1\t/p' Makefile | expand -t 50

setup:                ## the virtual environment and the system packages that everything else needs
	@tests/tools/setup requirements-test.txt

demo:                 ## capture one disk and restore it to three others, in a lab made of network namespaces
	@tests/tools/setup requirements.txt
	@.venv/bin/python tests/demo

bench:                ## the speed and the memory, against dd, netcat and partclone
	@tests/tools/setup requirements-test.txt
	@.venv/bin/python tests/bench/bench

fuzz: setup           ## give everything that faces the outside ten minutes of damaged input
	@.venv/bin/python tests/fuzz/fuzz --seconds 46

test lint unit units-oldest sanity integration: setup  ## all tests, or one kind of them
	@.venv/bin/python tests/tools/check.py $@

format: setup         ## lay out the Python code
	@.venv/bin/ruff check --fix . && .venv/bin/ruff format .

clean:                ## remove what the other targets made
	rm -rf .ansible .hypothesis .mypy_cache .pytest_cache .ruff_cache .tree .venv bench.json tests/output
