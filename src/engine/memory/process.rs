//! The memory that the process has of the machine, and what its allocator may keep of it for nothing.

/// Bytes that the process has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// All of it, as `ps` shows it.
    pub all: usize,
    /// Of it, pages of files: the program's code above all.
    pub files: usize,
}

impl Resident {
    /// As it is now; `None` where the system does not tell.
    pub fn now() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok()
        };
        let shared = kib("RssShmem").unwrap_or_default();
        Some(Resident { all: kib("VmRSS")? << 10, files: (kib("RssFile")? + shared) << 10 })
    }
}

/// Larger blocks are given back as soon as they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BLOCK: libc::c_int = 256 << 10;
/// More than this is not kept free at the end of a heap.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_FREE: libc::c_int = 1 << 20;
/// Most heaps, each with holes of its own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MOST_HEAPS: usize = 8;

/// Lets the allocator keep little that is free. By itself glibc has eight heaps a core, and with each large block that is
/// freed it makes room for larger ones in them, which goes back only from their ends.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_little() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let heaps = cores.min(MOST_HEAPS) as libc::c_int;
    // SAFETY: these calls set numbers of the allocator, under its own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, heaps);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_FREE);
    }
}

/// Lets the process have as many files open as the machine gives it: what is out of memory is in many.
#[cfg(unix)]
pub fn allow_files() {
    let mut files = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the first call writes the struct and the second one reads it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut files) == 0 && files.rlim_cur < files.rlim_max {
            files.rlim_cur = files.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &files);
        }
    }
}

/// Other systems are left alone.
#[cfg(not(unix))]
pub fn allow_files() {}

/// Gives free pages back to the machine.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn give_back() {
    // SAFETY: the allocator walks its own heaps, each under its lock.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators are left alone.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_little() {}

/// Other allocators are left alone.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn as_many_files_are_allowed_as_the_machine_gives() {
        allow_files();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let [soft, hard] = [0, 1].map(|at| files.split_whitespace().nth(at).unwrap());
        assert_eq!(soft, hard);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_touched_is_resident() {
        let before = Resident::now().unwrap();
        let touched = vec![1_u8; 64 << 20];
        let with = Resident::now().unwrap();
        assert!(with.all >= before.all + (48 << 20), "{before:?} {with:?}");
        assert!(with.files < with.all);
        drop(touched);
    }
}
