# What developers type; `just` lists it.

[private]
default:
    @just --list

# Everything that must hold before a change lands
gate:
    .ci/run

# All tests
test *ARGS:
    cargo test --release --workspace {{ARGS}}

# Format and lint
lint:
    cargo fmt --all
    cargo clippy --release --workspace --all-targets -- -D warnings

# The library's documentation, in the browser
doc:
    cargo doc --release --workspace --no-deps --open

# An audit of the embedded sample
sample OUT="report":
    cargo run --release -- audit --force --out {{OUT}}
