//! Configuration: one declaration per section, and everything else derived from it.
//!
//! A section is declared once with [`config_section!`](crate::config_section): its keys, their types, defaults,
//! ranges and explanations. From that come the struct that the rest of a process reads, the check of every value,
//! the printed default file and the reference in `docs/configuration.md`; they cannot disagree.
//!
//! Values come from a TOML file, then from `JACKFIELD_SECTION__KEY` variables, then from `--set section.key=value`;
//! the later wins. A key that nobody declared is refused, and the refusal names the nearest one that exists.
//!
//! - [`schema`]: the macros, and what a key knows about itself
//! - [`load`]: the three sources, their order, and the errors that name key, value and source
//! - [`mod@reference`]: the default file and the Markdown reference

pub mod load;
pub mod reference;
pub mod schema;
