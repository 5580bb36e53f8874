# What goes into the functions' packages. `sam build` runs the target build-FUNCTION with the ARTIFACTS_DIR to fill; the
# directory of the Makefile it reads is the architecture, chosen by the template's parameter. No compiler, no container:
# every dependency comes as a wheel for that architecture, whatever machine this is.
HERE := $(dir $(lastword $(MAKEFILE_LIST)))

PYTHON ?= python3
# The Python of the template's Runtime. The tests set it to that of the emulator, which runs functions with its own.
LAMBDA_PYTHON ?= 3.13
PLATFORMS := manylinux_2_28 manylinux_2_27 manylinux_2_26 manylinux_2_17 manylinux2014

# Neither the command line nor what the functions don't have the libraries for.
LEFT_OUT := __main__.py cli exporters mappings stores/local

build-%:
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --no-compile \
		--only-binary :all: --implementation cp --python-version $(LAMBDA_PYTHON) \
		$(PLATFORMS:%=--platform %_$(MACHINE)) --target "$(ARTIFACTS_DIR)" -r $(HERE)$*.lock
	rm -rf "$(ARTIFACTS_DIR)/bin"
	cp -R $(HERE)../pik "$(ARTIFACTS_DIR)/pik"
	echo $(ARCHITECTURE) > "$(ARTIFACTS_DIR)/pik/lambdas/ARCHITECTURE"
	cd "$(ARTIFACTS_DIR)/pik" && rm -rf $(LEFT_OUT) && find . -name __pycache__ -prune -exec rm -rf {} +
