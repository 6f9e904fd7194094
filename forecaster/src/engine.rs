//! The engine.

/// A model as installed in the engine.
#[derive(Debug, Clone)]
pub struct Installed;
