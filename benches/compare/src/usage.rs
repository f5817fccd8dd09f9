//! What a process costs while it does nothing: CPU time, and memory beside its mapped rings.

use crate::contender::Result;

/// CPU time a process has used, user and system, all threads. Resolution: one clock tick (10 ms).
pub(crate) fn cpu_ms(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything, so fields are counted from after the last one.
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("malformed stat")?.1.split_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // SAFETY: sysconf reads no memory of ours.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
    Ok(ticks * 1000 / ticks_per_second)
}

/// Times a process's threads went to sleep and were woken again; a poller's count grows while nothing happens.
pub(crate) fn voluntary_switches(pid: u32) -> Result<u64> {
    let mut switches = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        switches += status_field(&task?.path().join("status"), "voluntary_ctxt_switches:")?;
    }
    Ok(switches)
}

/// Resident bytes that are not shared memory: anonymous and file pages.
pub(crate) fn private_rss_bytes(pid: u32) -> Result<u64> {
    let status = std::path::PathBuf::from(format!("/proc/{pid}/status"));
    Ok((status_field(&status, "RssAnon:")? + status_field(&status, "RssFile:")?) * 1024)
}

fn status_field(status: &std::path::Path, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(status)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such status field")?;
    Ok(line.split_whitespace().next().ok_or("an empty status field")?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_be_read() {
        let pid = std::process::id();
        assert!(private_rss_bytes(pid).unwrap() > 100_000);
        cpu_ms(pid).unwrap();
        voluntary_switches(pid).unwrap();
    }
}
