//! The default file and the Markdown reference, both made from the declarations.

use std::fmt::Write;

use super::schema::{Anything, Entry, Field, Key};

/// Everything that is declared, in the order of declaration.
pub fn entries<C: Field + Default>() -> Vec<Entry> {
    let mut entries = Vec::new();
    C::default().describe("", &[], Anything, &mut entries);
    entries
}

/// The complete configuration with its defaults as a TOML file, each key under its explanation.
pub fn default_file<C: Field + Default>() -> String {
    let mut out = String::new();
    for entry in entries::<C>() {
        match entry {
            Entry::Section { path, doc } => {
                for line in doc {
                    append(&mut out, format_args!("# {line}\n"));
                }
                if !path.is_empty() {
                    append(&mut out, format_args!("[{path}]\n"));
                }
                out.push('\n');
            }
            Entry::Key(key) => {
                for line in &key.doc {
                    append(&mut out, format_args!("# {line}\n"));
                }
                append(&mut out, format_args!("# Accepts {}.\n", key.allowed));
                append(&mut out, format_args!("{} = {}\n\n", last_name(&key.path), key.default));
            }
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// The reference of every key as Markdown, one heading and table per section; the caller writes what stands above.
pub fn markdown<C: Field + Default>() -> String {
    let mut out = String::new();
    let mut in_table = false;
    for entry in entries::<C>() {
        match entry {
            Entry::Section { path, .. } if path.is_empty() => {}
            Entry::Section { path, doc } => {
                append(&mut out, format_args!("\n## `{path}`\n\n{}\n", doc.join("\n")));
                in_table = false;
            }
            Entry::Key(key) => {
                if !in_table {
                    out.push_str("\n| Key | Default | Meaning | Accepts |\n|---|---|---|---|\n");
                    in_table = true;
                }
                append(&mut out, format_args!("{}\n", row(&key)));
            }
        }
    }
    out
}

fn row(key: &Key) -> String {
    let is_empty = key.default.as_str() == Some("");
    let default = if is_empty { "empty".to_owned() } else { format!("`{}`", key.default) };
    let cells = [format!("`{}`", key.path), default, key.doc.join(" "), key.allowed.clone()];
    let cells = cells.map(|cell| cell.replace('|', "\\|"));
    format!("| {} |", cells.join(" | "))
}

fn last_name(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Writing to a `String` cannot fail.
fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _infallible = out.write_fmt(text);
}

#[cfg(test)]
#[expect(unreachable_pub, reason = "the macros declare public items")]
mod tests {
    use super::*;
    use crate::config_section;

    config_section! {
        /// All of it.
        pub struct Whole {
            /// The part.
            pub part: Part = Part::default(),
        }
    }

    config_section! {
        /// One part.
        pub struct Part {
            /// First `a|b`.
            /// Second line.
            pub count: usize = 3 => 1..=9,
            /// Names.
            pub names: Vec<String> = vec!["x".to_owned()],
        }
    }

    #[test]
    fn the_default_file_explains_and_parses() {
        let text = default_file::<Whole>();
        let expected = "# All of it.\n\n# One part.\n[part]\n\n# First `a|b`.\n# Second line.\n\
            # Accepts a whole number from 1 to 9.\ncount = 3\n\n# Names.\n# Accepts a list, text each.\nnames = [\"x\"]\n";
        assert_eq!(text, expected);
        assert_eq!(toml::from_str::<Whole>(&text).unwrap(), Whole::default());
    }

    #[test]
    fn the_reference_is_one_table_per_section() {
        let expected = "\n## `part`\n\nOne part.\n\n| Key | Default | Meaning | Accepts |\n|---|---|---|---|\n\
            | `part.count` | `3` | First `a\\|b`. Second line. | a whole number from 1 to 9 |\n\
            | `part.names` | `[\"x\"]` | Names. | a list, text each |\n";
        assert_eq!(markdown::<Whole>(), expected);
    }
}
