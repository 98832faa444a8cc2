//! Any bytes as a file of a checkpoint whose checksum is right: what they say, or that it is damaged.

use crate::engine::checkpoint::unsealed;

/// Reads the bytes behind the first as a manifest (`m`) or a segment, as if their checksum were right; true where they are one.
///
/// # Panics
/// Where a promise is broken.
pub fn checkpoint(input: &[u8]) -> bool {
    let told = match input.split_first() {
        Some((b'm', body)) => unsealed::read_manifest(body),
        Some((_, segment)) => unsealed::read_segment(segment),
        None => return false,
    };
    if let Err(reason) = &told {
        assert!(!reason.is_empty() && !reason.contains("panic"), "{reason}");
    }
    told.is_ok()
}
