//! From a tag's SQL to a flow plan that can be stepped; refuses what cannot stream. No I/O.
