//! How much memory the process has taken, and how much of memory and disk there is.

use std::path::Path;

/// Peak resident memory in bytes, where the system tells (Linux).
pub fn peak_resident_bytes() -> Option<u64> {
    field("/proc/self/status", "VmHWM:")
}

/// Lets [`peak_resident_bytes`] begin anew, where the system can (Linux).
pub fn forget_peak_resident_bytes() {
    // Where it cannot, the peak is that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Bytes that can still be written where a folder is, or will be; none where the system does not tell.
#[cfg(unix)]
pub fn free_disk_bytes(folder: &Path) -> Option<u64> {
    let there = std::path::absolute(folder).ok()?;
    let disk = there.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok())?;
    Some(disk.f_bavail * disk.f_frsize)
}

/// Bytes that can still be written where a folder is, or will be; none where the system does not tell.
#[cfg(not(unix))]
pub fn free_disk_bytes(_folder: &Path) -> Option<u64> {
    None
}

/// The processor's name, where the system tells (Linux).
pub fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// A line such as `VmHWM:  1234 kB`, in bytes.
fn field(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Bytes as people read them.
pub fn mebibytes(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 0.1 {
        return format!("{:.1} KiB", bytes as f64 / 1024.0);
    }
    match mib {
        ..10.0 => format!("{mib:.2} MiB"),
        ..10_240.0 => format!("{mib:.0} MiB"),
        _ => format!("{:.1} GiB", mib / 1024.0),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Regression: what did not fit was "0.00 MiB", and so was what was free.
    #[test]
    fn little_is_told_from_nothing() {
        assert_eq!([2048, 1 << 20, 25 << 20].map(mebibytes), ["2.0 KiB", "1.00 MiB", "25 MiB"]);
        assert_eq!([9 << 30, 15 << 30].map(mebibytes), ["9216 MiB", "15.0 GiB"]);
    }

    #[test]
    fn the_disk_of_a_folder_that_is_not_there_yet_is_that_of_its_parent() {
        assert_eq!(free_disk_bytes(Path::new("/nowhere/at/all")).map(|bytes| bytes > 0), Some(true));
    }
}
