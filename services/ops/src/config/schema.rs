//! What a section declares: keys with types, defaults, rules and explanations.

use std::net::SocketAddr;
use std::ops::{Deref, RangeInclusive};
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Value;

/// Declares one section of the configuration.
///
/// A key is `pub name: type = default`, optionally followed by `=> rule` (a range, or
/// [`must`](crate::config::schema::must)), and carries its explanation as doc comment. A nested section is a key whose
/// type is itself a section; it comes after the plain keys. A closing `consistent: function` names a check over several
/// keys of the section: it gets the section and returns what is wrong, if anything.
///
/// The macro writes the struct, `Default`, serde's traits (unknown fields refused, missing ones defaulted) and
/// [`Field`](crate::config::schema::Field). The crate that uses it depends on `serde`.
#[macro_export]
macro_rules! config_section {
    (@rule) => { $crate::config::schema::Anything };
    (@rule $rule:expr) => { $rule };
    (
        $(#[doc = $section_doc:literal])+
        $vis:vis struct $section:ident {
            $(
                $(#[doc = $doc:literal])+
                $field_vis:vis $field:ident : $type:ty = $default:expr $(=> $rule:expr)?
            ),+ $(,)?
        }
        $(consistent: $consistent:expr)?
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        $vis struct $section {
            $(
                $(#[doc = $doc])+
                $field_vis $field: $type,
            )+
        }

        impl Default for $section {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $crate::config::schema::Field for $section {
            fn describe<R: $crate::config::schema::Rule<Self> + 'static>(
                &self,
                path: &str,
                _doc: &[&'static str],
                _rule: R,
                out: &mut Vec<$crate::config::schema::Entry>,
            ) {
                out.push($crate::config::schema::Entry::section(path, &[$($section_doc),+]));
                $(
                    $crate::config::schema::Field::describe(
                        &self.$field,
                        &$crate::config::schema::join(path, stringify!($field)),
                        &[$($doc),+],
                        $crate::config_section!(@rule $($rule)?),
                        out,
                    );
                )+
            }

            fn conflict(&self) -> Option<String> {
                $(
                    if let Some(conflict) = $crate::config::schema::Field::conflict(&self.$field) {
                        return Some(conflict);
                    }
                )+
                $(
                    let consistent: fn(&Self) -> Option<String> = $consistent;
                    if let Some(conflict) = consistent(self) {
                        return Some(conflict);
                    }
                )?
                None
            }
        }
    };
}

/// Declares a key's type that has a fixed set of named values, each with its explanation.
#[macro_export]
macro_rules! config_choice {
    (
        $(#[doc = $choice_doc:literal])+
        $vis:vis enum $choice:ident {
            $(
                $(#[doc = $doc:literal])+
                $variant:ident = $name:literal
            ),+ $(,)?
        }
    ) => {
        $(#[doc = $choice_doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ::serde::Serialize, ::serde::Deserialize)]
        $vis enum $choice {
            $(
                $(#[doc = $doc])+
                #[serde(rename = $name)]
                $variant,
            )+
        }

        impl $choice {
            /// Every value under its configured name, in the order of the reference.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The name under which the value is configured.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }

        impl ::std::fmt::Display for $choice {
            fn fmt(&self, out: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                out.write_str(self.as_str())
            }
        }

        impl $crate::config::schema::Leaf for $choice {
            const SHAPE: $crate::config::schema::Shape = $crate::config::schema::Shape::Text;

            fn allowed() -> String {
                $crate::config::schema::one_of(Self::NAMES)
            }
        }

        impl $crate::config::schema::Item for $choice {
            fn allowed() -> String {
                format!("{} each", $crate::config::schema::one_of(Self::NAMES))
            }
        }
    };
}

/// One line of the reference: a section's heading or a key.
#[derive(Debug)]
pub enum Entry {
    /// A section begins; its keys follow.
    Section {
        /// Dotted name; empty for the whole configuration.
        path: String,
        /// The explanation, one sentence or line each.
        doc: Vec<&'static str>,
    },
    /// A key of the section that began last.
    Key(Key),
}

impl Entry {
    /// Starts a section's description; called by [`config_section!`](crate::config_section).
    pub fn section(path: &str, doc: &[&'static str]) -> Self {
        Self::Section { path: path.to_owned(), doc: trimmed(doc) }
    }
}

/// What a key knows about itself.
pub struct Key {
    /// Dotted name, `edge.limits.rooms_max`.
    pub path: String,
    /// The built-in value.
    pub default: Value,
    /// The explanation, one line each.
    pub doc: Vec<&'static str>,
    /// The accepted values in words, to follow "give".
    pub allowed: String,
    /// How a value given as bare text is understood.
    pub shape: Shape,
    accepts: Box<dyn Fn(&Value) -> bool>,
}

impl Key {
    /// Tells whether a value has the key's type and obeys its rule.
    pub fn accepts(&self, value: &Value) -> bool {
        (self.accepts)(value)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Key")
            .field("path", &self.path)
            .field("default", &self.default)
            .finish_non_exhaustive()
    }
}

/// How a value that arrives as bare text (a variable, a flag) becomes a TOML value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The text itself, unless it is a quoted TOML string.
    Text,
    /// A TOML array, or items separated by commas.
    List,
    /// Any other TOML value.
    Number,
}

/// Something a section may hold: a value, or a section again.
pub trait Field: Serialize + DeserializeOwned + 'static {
    /// Appends what the reference says about the field and, for a section, about everything in it.
    fn describe<R: Rule<Self> + 'static>(
        &self,
        path: &str,
        doc: &[&'static str],
        rule: R,
        out: &mut Vec<Entry>,
    );

    /// Says what is wrong between several keys that are each acceptable, if anything is.
    fn conflict(&self) -> Option<String> {
        None
    }
}

/// A value type a key may have.
pub trait Leaf: Serialize + DeserializeOwned + 'static {
    /// How bare text is understood.
    const SHAPE: Shape;

    /// The accepted values in words, where the key has no rule of its own.
    fn allowed() -> String;
}

impl<T: Leaf> Field for T {
    fn describe<R: Rule<Self> + 'static>(
        &self,
        path: &str,
        doc: &[&'static str],
        rule: R,
        out: &mut Vec<Entry>,
    ) {
        // Each default is a plain TOML value; a type that were not would show as an empty default in the reference.
        let default = Value::try_from(self).unwrap_or_else(|_| Value::String(String::new()));
        out.push(Entry::Key(Key {
            path: path.to_owned(),
            default,
            doc: trimmed(doc),
            allowed: rule.allowed().unwrap_or_else(T::allowed),
            shape: T::SHAPE,
            accepts: Box::new(move |value| {
                value.clone().try_into::<T>().is_ok_and(|parsed| rule.accepts(&parsed))
            }),
        }));
    }
}

/// What an item of a list may be.
pub trait Item: Serialize + DeserializeOwned + 'static {
    /// The accepted items in words, to follow "a list, ".
    fn allowed() -> String;
}

impl<T: Item> Leaf for Vec<T> {
    const SHAPE: Shape = Shape::List;

    fn allowed() -> String {
        format!("a list, {}", T::allowed())
    }
}

impl Item for String {
    fn allowed() -> String {
        "text each".to_owned()
    }
}

macro_rules! leaf {
    ($($type:ty, $shape:ident, $allowed:literal;)+) => {
        $(
            impl Leaf for $type {
                const SHAPE: Shape = Shape::$shape;

                fn allowed() -> String {
                    $allowed.to_owned()
                }
            }
        )+
    };
}

leaf! {
    bool, Number, "true or false";
    u64, Number, "a whole number";
    usize, Number, "a whole number";
    String, Text, "text";
    PathBuf, Text, "a path";
    SocketAddr, Text, "an address and a port, such as 127.0.0.1:3000 or [::]:3000";
}

/// Which values of a type a key accepts.
pub trait Rule<T> {
    /// Tells whether the value is acceptable.
    fn accepts(&self, value: &T) -> bool;

    /// The accepted values in words; `None` where the type says it all.
    fn allowed(&self) -> Option<String>;
}

/// The rule of a key that has none.
#[derive(Debug, Clone, Copy)]
pub struct Anything;

impl<T> Rule<T> for Anything {
    fn accepts(&self, _value: &T) -> bool {
        true
    }

    fn allowed(&self) -> Option<String> {
        None
    }
}

impl<T: PartialOrd + std::fmt::Display> Rule<T> for RangeInclusive<T> {
    fn accepts(&self, value: &T) -> bool {
        self.contains(value)
    }

    fn allowed(&self) -> Option<String> {
        Some(format!("a whole number from {} to {}", self.start(), self.end()))
    }
}

/// A rule that is a function with its wording; the function sees text as `str` and a list as a slice.
#[derive(Debug, Clone, Copy)]
pub struct Must<B: ?Sized> {
    allowed: &'static str,
    holds: fn(&B) -> bool,
}

/// Makes a rule: `allowed` completes the sentence "give ...", `holds` decides.
pub fn must<B: ?Sized>(allowed: &'static str, holds: fn(&B) -> bool) -> Must<B> {
    Must { allowed, holds }
}

impl<B: ?Sized, T: Deref<Target = B>> Rule<T> for Must<B> {
    fn accepts(&self, value: &T) -> bool {
        (self.holds)(value)
    }

    fn allowed(&self) -> Option<String> {
        Some(self.allowed.to_owned())
    }
}

/// Lists the choices of an enumeration: `"text" or "json"`.
pub fn one_of(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" or ")
}

/// Joins a section's path and a key's name with a dot.
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn trimmed(doc: &[&'static str]) -> Vec<&'static str> {
    doc.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect()
}
