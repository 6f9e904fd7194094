//! Payloads: bytes in, readings out.

mod path;

pub(crate) use path::path;
