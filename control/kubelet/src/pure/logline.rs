//! The CRI log format: `<RFC 3339 time> <stdout|stderr> <P|F> <content>`.
//! <https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md>

use jiff::Timestamp;

/// One line of a log file.
#[derive(Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// The time as written.
    pub time: &'a str,
    pub stream: &'a str,
    /// More of the same line follows in the next entry.
    pub partial: bool,
    pub content: &'a [u8],
}

/// Reads one line (without its newline).
pub fn parse(line: &[u8]) -> Option<LogLine<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tags = parts.next()?;
    let content = parts.next().unwrap_or_default();
    if !matches!(stream, "stdout" | "stderr") || time.is_empty() {
        return None;
    }
    let partial = tags.split(|b| *b == b':').next() == Some(b"P");
    Some(LogLine {
        time,
        stream,
        partial,
        content,
    })
}

/// What part of a log a reader wants.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    pub stream: Option<String>,
}

/// Turns log entries into the bytes that a reader gets; a partial entry has no newline.
#[derive(Debug, Default)]
pub struct LogWriter {
    filter: LogFilter,
    /// Within a line of parts, for each stream: the time stamp is written only once.
    mid_line: [bool; 2],
}

impl LogWriter {
    pub fn new(filter: LogFilter) -> Self {
        LogWriter {
            filter,
            mid_line: [false; 2],
        }
    }

    /// Appends what the reader sees of one entry.
    pub fn write(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(entry) = parse(line) else { return };
        if self
            .filter
            .stream
            .as_deref()
            .is_some_and(|s| s != entry.stream)
        {
            return;
        }
        if let Some(since) = self.filter.since
            && entry.time.parse::<Timestamp>().is_ok_and(|t| t < since)
        {
            return;
        }
        let mid = &mut self.mid_line[usize::from(entry.stream == "stderr")];
        if self.filter.timestamps && !*mid {
            out.extend_from_slice(entry.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(entry.content);
        if !entry.partial {
            out.push(b'\n');
        }
        *mid = entry.partial;
    }
}

/// Where the last `lines` whole lines of a log begin, searching back from the end: an offset into
/// `data`, which is a file or its tail. Parts of one line count once.
pub fn tail_offset(data: &[u8], lines: usize) -> usize {
    if lines == 0 {
        return data.len();
    }
    let mut starts = vec![];
    let mut at = 0;
    let mut continues = false;
    for line in data.split_inclusive(|b| *b == b'\n') {
        let entry = parse(line.strip_suffix(b"\n").unwrap_or(line));
        if !continues {
            starts.push(at);
        }
        continues = entry.is_some_and(|e| e.partial);
        at += line.len();
    }
    starts.len().checked_sub(lines).map_or(0, |i| starts[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"2026-01-01T00:00:01.5Z stdout F one\n\
2026-01-01T00:00:02Z stderr P two-\n\
2026-01-01T00:00:02Z stderr F end\n\
2026-01-01T00:00:03Z stdout F \n\
2026-01-01T00:00:04Z stdout F four with spaces\n";

    fn read(filter: LogFilter, from: usize) -> String {
        let mut w = LogWriter::new(filter);
        let mut out = vec![];
        for line in LOG[from..].split(|b| *b == b'\n') {
            w.write(line, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn joins_parts() {
        assert_eq!(
            read(LogFilter::default(), 0),
            "one\ntwo-end\n\nfour with spaces\n"
        );
        assert_eq!(
            read(
                LogFilter {
                    timestamps: true,
                    stream: Some("stderr".into()),
                    since: None
                },
                0
            ),
            "2026-01-01T00:00:02Z two-end\n"
        );
        let since = Some("2026-01-01T00:00:03Z".parse().unwrap());
        assert_eq!(
            read(
                LogFilter {
                    since,
                    ..Default::default()
                },
                0
            ),
            "\nfour with spaces\n"
        );
    }

    #[test]
    fn tails_count_whole_lines() {
        for (n, want) in [
            (0, ""),
            (1, "four with spaces\n"),
            (2, "\nfour with spaces\n"),
            (3, "two-end\n\nfour with spaces\n"),
            (4, "one\ntwo-end\n\nfour with spaces\n"),
            (99, "one\ntwo-end\n\nfour with spaces\n"),
        ] {
            assert_eq!(read(LogFilter::default(), tail_offset(LOG, n)), want, "{n}");
        }
    }

    #[test]
    fn rubbish_is_left_out() {
        assert_eq!(parse(b"garbage"), None);
        assert_eq!(parse(b"t other F x"), None);
        assert_eq!(parse(b"\xff stdout F x"), None);
        assert!(parse(b"t stdout F").is_some());
    }
}
