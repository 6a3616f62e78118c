# What there is to do here. `just --list` prints it; every recipe takes the python of $VENV.
venv := env_var_or_default("VENV", ".venv")
python := venv + "/bin/python"

# answer on the shipped clip with the shipped model
demo:
    {{venv}}/bin/edgepkd demo

# the whole test suite
test *args:
    {{python}} -m pytest {{args}}

# all but the slow ones, in less than a minute and a half
test-fast *args:
    {{python}} -m pytest -m 'not slow' {{args}}

# style, types, layers, what bandit finds in the code, known faults of the dependencies
check:
    {{venv}}/bin/ruff check .
    {{venv}}/bin/mypy
    {{venv}}/bin/lint-imports
    {{venv}}/bin/bandit -q -c pyproject.toml -r edgepkd export calibration
    {{python}} -m tests.audit

# an hour of hostile videos, what they break in runs/fuzz: `just fuzz --minutes 5 --seed 1`
fuzz *args:
    OMP_NUM_THREADS=1 {{python}} -m tests.fuzz --out runs/fuzz {{args}}

# every benchmark, on a quiet machine; tables on stdout, JSON in docs/results
bench:
    {{python}} -m tests.bench.bench_decode --json docs/results/decode.json
    {{python}} -m tests.bench.bench_cascade --json docs/results/cascade.json
    {{python}} -m tests.bench.bench_exits --json docs/results/exits.json
    {{python}} -m tests.bench.bench_int8 --json docs/results/int8-cpu.json

# everything that needs a GPU, in one call
gpu:
    {{python}} -m tests.bench.gpu --json docs/results/gpu.json

# CE, PKD, anti-curriculum, I-frame KD and WISE on three real sets, about an hour and a half on two
# cores; started again it goes on. `just reproduce --quick` shows that it runs, in three minutes
reproduce *args:
    {{python}} -m edgepkd.studies.exits {{args}}

# does the default recipe carry over? three real sets, three seeds, held-out groups, against floors;
# about an hour and three quarters on two cores. `just carry-over --quick` shows that it runs
carry-over *args:
    {{python}} -m edgepkd.studies.defaults {{args}}

# INT8 by PTQ (plain and corrected), QAT and QAD against FP32, of one seed of `just carry-over`, whose
# networks it takes where they are there; `just reproduce-int8 --quick` shows that it runs
reproduce-int8 *args:
    {{python}} -m edgepkd.studies.int8 {{args}}

# train a bundle like the shipped one in about 13 minutes, or `just demo-model weizmann`
demo-model set="fights" *args:
    {{python}} -m edgepkd.studies.demo --set {{set}} --data ../shared/data --out runs/demo {{args}}

# sdist and wheel in dist/
build:
    {{python}} -m build
