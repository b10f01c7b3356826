//! The process that holds client connections.
