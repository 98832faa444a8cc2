//! HTTP: health, metrics, status. Reads the engine's status and nothing else.
