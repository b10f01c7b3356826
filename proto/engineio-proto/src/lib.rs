//! Engine.IO 3 and 4 without I/O: packets, payloads, handshake, session machine.
