PYTHON ?= python3

.PHONY: build clean

build:
	$(PYTHON) setup.py -q build_ext --inplace

clean:
	rm -rf build dist *.egg-info benign_kernels/*.so
