//! The documents that callers and the emitter exchange: JSON text in which a binary value is `{"$binary":"<base64>"}`.
//!
//! A MessagePack body or answer is the same document with native binary values in place of these objects, so everything
//! behind the border knows JSON only.
//!
//! - [`binary`]: `$binary` to placeholders and attachments, and back
//! - [`msgpack`]: the document as MessagePack, and back

pub(crate) mod binary;
pub(crate) mod msgpack;
