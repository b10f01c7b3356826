# What one does here all day. `just` lists it; `tests/run` is everything, and installs what it needs.

# One profile and one set of features, the same as `tests/run`, so that nothing is compiled twice.
all := "--release --locked --workspace"

# Lists the recipes.
default:
    @just --list

# The fast part: format, lints, unit and machine tests, documents, dependencies.
check:
    cargo fmt --all --check
    cargo clippy {{all}} --all-targets -- --deny warnings
    cargo test {{all}} --exclude system-tests
    RUSTDOCFLAGS="--deny warnings" cargo doc {{all}} --no-deps
    cargo deny --locked --log-level error check bans licenses sources

# Everything that must hold; arguments go to cargo-nextest: `just test -E 'test(javascript_4_8)'`.
[positional-arguments]
test *arguments:
    tests/run "$@"

# Measures against a bare epoll loop and prints a table: `just bench --only echo-100 --rounds 9`.
[positional-arguments]
bench *arguments:
    cargo build {{all}}
    tests/load/compare "$@"

# Writes docs/configuration.md anew from the keys in the code.
docs:
    cargo build --release --locked
    cargo run --release --locked --quiet -- config-doc > docs/configuration.md
