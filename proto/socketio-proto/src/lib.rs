//! Socket.IO protocols 4 and 5 without I/O: packets, parsers, namespaces.
