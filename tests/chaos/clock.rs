//! A library to load before the daemon (LD_PRELOAD): its wall clock is so many seconds from the true one as the file
//! named by CHAOS_CLOCK says. Nothing else changes: not the monotonic clock, and not what C code asks by gettimeofday,
//! since a wait until a moment of the true clock would then be as much too long or too short.
//!
//! `daemon.rs` compiles it with rustc; it is no part of the test itself.

use std::ffi::{c_int, c_long};

#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanos: c_long,
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

const REALTIME: c_int = 0;
#[cfg(target_arch = "x86_64")]
const CLOCK_GETTIME: c_long = 228;
#[cfg(target_arch = "aarch64")]
const CLOCK_GETTIME: c_long = 113;

/// # Safety
/// As that of the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    let outcome = unsafe { syscall(CLOCK_GETTIME, clock, time) } as c_int;
    if clock == REALTIME && outcome == 0 {
        let file = std::env::var_os("CHAOS_CLOCK").and_then(|file| std::fs::read_to_string(file).ok());
        let offset = file.and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(0);
        unsafe { (*time).seconds += offset };
    }
    outcome
}
