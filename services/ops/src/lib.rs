//! What every process needs: configuration, logs, ops listener, signals.
