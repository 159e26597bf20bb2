//! Memory that only the start needs goes back to the kernel. Most of it is code: the schemas of all
//! kinds are made once, by code of several megabytes that nothing runs again.

use std::time::Duration;

/// How long the start takes, with its first lists.
const START: Duration = Duration::from_secs(5);

pub async fn after_start() {
    tokio::time::sleep(START).await;
    match release() {
        Ok(bytes) => tracing::debug!(bytes, "gave back the pages of the program's code"),
        Err(error) => tracing::debug!(%error, "the pages of the program's code stay"),
    }
}

/// Unmaps the pages of the program's code: what is run again comes back from the page cache, by a
/// minor fault. Says how many bytes of address space that are.
fn release() -> std::io::Result<usize> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let program = program.to_string_lossy();
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut released = 0;
    for (start, end) in maps.lines().filter_map(|line| code_of(line, &program)) {
        // SAFETY: a private mapping of a file, executable and never written (it has no
        // relocations, which are in pages of their own): dropping its pages loses nothing, and
        // the kernel reads them again from the file, also while they are executed.
        let result =
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        if result != 0 {
            return Err(std::io::Error::last_os_error());
        }
        released += end - start;
    }
    // SAFETY: it only gives back what the allocator has free.
    unsafe { libc::malloc_trim(0) };
    Ok(released)
}

/// The range of a line of `/proc/self/maps` that is code of the program.
fn code_of(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    let path = line.split_once('/').map(|(_, rest)| rest)?;
    if permissions != "r-xp" || program.strip_prefix('/') != Some(path) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let address = |text: &str| usize::from_str_radix(text, 16).ok();
    Some((address(start)?, address(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_from_the_rest() {
        let line = |permissions: &str, path: &str| {
            format!("7f00-7f10 {permissions} 00001000 fe:00 1234                 {path}")
        };
        let program = "/usr/bin/rhumb control";
        let found = |permissions: &str, path: &str| code_of(&line(permissions, path), program);
        assert_eq!(found("r-xp", program), Some((0x7f00, 0x7f10)));
        assert_eq!(found("r--p", program), None);
        assert_eq!(found("rw-p", program), None);
        assert_eq!(found("r-xp", "/lib/libc.so.6"), None);
        assert_eq!(found("r-xp", "[vdso]"), None);
        assert_eq!(code_of("", program), None);
    }

    #[test]
    fn the_program_goes_on_without_its_pages() {
        assert!(release().unwrap() > 0);
        assert_eq!(
            code_of("7f00-7f10 r-xp 0 0 0 /a", "/a"),
            Some((0x7f00, 0x7f10))
        );
    }
}
