//! How much memory the process has taken, and how much there is.

/// Peak resident memory in bytes, where the system tells (Linux).
pub fn peak_resident_bytes() -> Option<u64> {
    field("/proc/self/status", "VmHWM:")
}

/// Four fifths of the memory that the machine could give, in bytes, where the system tells (Linux): a game leaves something
/// to everybody else.
pub fn bytes_for_a_game() -> Option<u64> {
    available_bytes().map(|bytes| bytes / 5 * 4)
}

/// Memory that the machine could give, in bytes, where the system tells (Linux).
pub fn available_bytes() -> Option<u64> {
    field("/proc/meminfo", "MemAvailable:")
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
    if mib < 10.0 { format!("{mib:.2} MiB") } else { format!("{mib:.0} MiB") }
}
