//! RFC 6455 server side without I/O: frames, fragments, close codes, accept key.
