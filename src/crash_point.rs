//! Places between the steps of the commit protocol at which a debug build ends as a crash does, when it is asked to by
//! `TAGFLOW_CRASH_AT=commit.rows` (or `commit.rows:3`, at the third time). A release build has none of it.
//! `tests/chaos` finds the names in the source and crashes at each of them.

/// The process may end here.
#[cfg(debug_assertions)]
pub(crate) fn crash_point(point: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static ASKED: OnceLock<Option<(String, usize)>> = OnceLock::new();
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    let asked = ASKED.get_or_init(|| {
        let text = std::env::var("TAGFLOW_CRASH_AT").ok()?;
        match text.split_once(':') {
            Some((name, times)) => Some((name.to_string(), times.parse().ok()?)),
            None => Some((text, 1)),
        }
    });
    if let Some((name, times)) = asked
        && name == point
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *times
    {
        // No destructor runs and nothing is flushed.
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn crash_point(_: &'static str) {}
